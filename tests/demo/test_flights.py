"""The instants of the demo's events are plausible: checked against clocks and air times that they were not made from.

Everything here is a statement about all 336,776 flights, read once. No store is touched.

             scheduled departure            scheduled arrival
    ─────────────┼──────────┼──────────────────────┼───────┼───────────→ UTC
                 └ dep_delay┘ departure            └ arr_d ┘ arrival
                            └──── air_time + taxiing ──────┘
"""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from demo.flights import FLIGHTS_OF_2013, Flights, read_flights


@pytest.fixture(scope="module")
def flights() -> Flights:
    """The year, read once."""
    return read_flights()


def one_row(flights: pa.Table, sql: str) -> tuple[object, ...]:
    """The only row of a query over the flights."""
    connection = duckdb.connect()
    connection.execute("SET timezone = 'UTC'")
    connection.register("flights", flights)
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row


def test_every_flight_has_one_departure_event(flights: Flights) -> None:
    assert flights.departures.num_rows == FLIGHTS_OF_2013
    assert pc.count_distinct(flights.departures["event_id"]).as_py() == FLIGHTS_OF_2013
    assert flights.departures["ts"].null_count == 0
    assert flights.departures["origin"].null_count == 0
    assert flights.departures["carrier"].null_count == 0


def test_cancelled_flights_keep_their_place_without_a_delay(flights: Flights) -> None:
    cancelled = flights.departures.filter(flights.departures["cancelled"])
    assert cancelled.num_rows == 8_255
    assert cancelled["dep_delay"].null_count == 8_255
    assert cancelled["tail_number"].null_count == flights.departures["tail_number"].null_count == 2_512


def test_arrivals_have_an_aircraft_and_are_unique(flights: Flights) -> None:
    assert flights.arrivals.num_rows == FLIGHTS_OF_2013 - 8_255 - 458
    assert pc.count_distinct(flights.arrivals["event_id"]).as_py() == flights.arrivals.num_rows
    assert flights.arrivals["tail_number"].null_count == 0
    assert flights.arrivals["arr_delay"].null_count == 717


def test_departure_instants_give_back_the_local_clock(flights: Flights) -> None:
    sql = """
        SELECT count(*) FILTER (strftime(timezone('America/New_York', departure), '%H%M')::INT <> dep_time % 2400),
               count(departure)
        FROM flights"""
    assert one_row(flights.flights, sql) == (0, FLIGHTS_OF_2013 - 8_255)


def test_arrival_instants_give_back_the_local_clock_but_for_one_in_the_lost_hour(flights: Flights) -> None:
    """On 10 March 2013, 02:00-03:00 did not exist; one flight from JFK to PBI reports 02:03 for 03:03."""
    sql = """
        SELECT count(*) FILTER (strftime(timezone(zone, arrival), '%H%M')::INT <> arr_time % 2400), count(arrival)
        FROM flights"""
    assert one_row(flights.flights, sql) == (1, 328_063)


def test_time_between_the_events_is_the_air_time_and_some_taxiing(flights: Flights) -> None:
    """Quantiles of (arrival - departure - air_time) in minutes: 5 least, 11 p0.1, 28 median, 136 p99.9, 235 most."""
    sql = """
        SELECT quantile_cont(epoch(arrival - departure) / 60 - air_time, [0, 0.001, 0.5, 0.999, 1]), count(air_time)
        FROM flights"""
    quantiles, flown = one_row(flights.flights, sql)
    assert quantiles == [5.0, 11.0, 28.0, 136.0, 235.0]
    assert flown == 327_346


def test_schedules_last_between_50_and_700_minutes(flights: Flights) -> None:
    sql = (
        "SELECT min(scheduled_arrival - scheduled_departure), max(scheduled_arrival - scheduled_departure) FROM flights"
    )
    shortest, longest = one_row(flights.flights, f"SELECT epoch(a) / 60, epoch(b) / 60 FROM ({sql}) AS t(a, b)")
    assert (shortest, longest) == (50.0, 700.0)


def test_diverted_flights_arrive_within_a_day_of_departing(flights: Flights) -> None:
    sql = """
        SELECT count(*), min(epoch(arrival - departure)) / 3600 > 1, max(epoch(arrival - departure)) / 3600 < 24
        FROM flights WHERE arr_delay IS NULL AND arrival IS NOT NULL"""
    assert one_row(flights.flights, sql) == (717, True, True)


def test_a_known_flight_by_hand(flights: Flights) -> None:
    """UA1545 left Newark at 05:17 (-5 h), two minutes late, and reached Houston at 08:30 (-6 h), eleven late."""
    only = pc.equal(flights.flights["flight_id"], "UA1545-EWR-2013-01-01")
    row = flights.flights.filter(only).to_pylist()[0]
    assert row["departure"] == datetime(2013, 1, 1, 10, 17, tzinfo=UTC)
    assert row["arrival"] == datetime(2013, 1, 1, 14, 30, tzinfo=UTC)


def test_events_are_in_order(flights: Flights) -> None:
    for table in (flights.departures, flights.arrivals):
        order = pc.sort_indices(table, sort_keys=[("ts", "ascending"), ("event_id", "ascending")])
        assert order.equals(pa.array(range(table.num_rows), pa.uint64()))


def test_weather_is_effective_at_the_end_of_its_hour_and_unique(flights: Flights) -> None:
    weather = flights.weather
    lag = pc.subtract(weather["effective_at"], weather["observed_at"]).unique()
    assert [value.as_py().total_seconds() for value in lag] == [3600.0]
    connection = duckdb.connect()
    connection.register("weather", weather)
    assert connection.execute("SELECT count(*) - count(DISTINCT (origin, observed_at)) FROM weather").fetchone() == (0,)


def test_planes_are_effective_from_the_year_they_were_built(flights: Flights) -> None:
    planes = flights.planes
    assert planes.num_rows == 3_322
    assert planes["built"].null_count == 70
    assert pc.min(planes["effective_at"]).as_py() == datetime(1956, 1, 1, tzinfo=UTC)


def test_a_late_flight_is_more_than_fifteen_minutes_late(flights: Flights) -> None:
    spine = flights.spine
    assert spine.num_rows == FLIGHTS_OF_2013
    assert spine["late"].null_count == 9_430
    assert 0.2 < pc.mean(spine["late"]).as_py() < 0.3
