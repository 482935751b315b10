"""Where events and rows come from. An event is dated at the instant at which it became known, never earlier.

The event sources read files that only grow, in `$FOREBAY_HOME/stream`; put a `RedisStream` in their
place and nothing else changes.
"""

from __future__ import annotations

from forebay import Bool, EventSource, FileStream, Float64, Int64, String, TableSource, Timestamp

OWNER = "flights@example.com"
DOMAIN = {"domain": "flights"}
HISTORY_START = "2013-01-01"

departures = EventSource(
    "departures",
    schema={
        "event_id": String,
        "ts": Timestamp,
        "origin": String,
        "dest": String,
        "carrier": String,
        "flight": Int64,
        "tail_number": String,
        "dep_delay": Int64,
        "cancelled": Bool,
    },
    timestamp="ts",
    event_id="event_id",
    stream=FileStream("${FOREBAY_HOME}/stream/departures.ndjson"),
    lateness="10m",
    history_start=HISTORY_START,
    owner=OWNER,
    description="A flight left, or was cancelled (then at its scheduled departure, without a delay). In minutes.",
    tags=DOMAIN,
)

arrivals = EventSource(
    "arrivals",
    schema={
        "event_id": String,
        "ts": Timestamp,
        "tail_number": String,
        "origin": String,
        "dest": String,
        "carrier": String,
        "flight": Int64,
        "arr_delay": Int64,
    },
    timestamp="ts",
    event_id="event_id",
    stream=FileStream("${FOREBAY_HOME}/stream/arrivals.ndjson"),
    lateness="10m",
    history_start=HISTORY_START,
    owner=OWNER,
    description="A flight reached its gate. The delay, in minutes, is null when it was diverted on the way.",
    tags=DOMAIN,
)

weather = TableSource(
    "weather",
    schema={
        "origin": String,
        "effective_at": Timestamp,
        "temperature": Float64,
        "humidity": Float64,
        "wind_speed": Float64,
        "wind_gust": Float64,
        "precipitation": Float64,
        "pressure": Float64,
        "visibility": Float64,
    },
    effective="effective_at",
    path="${FOREBAY_HOME}/tables/weather.parquet",
    owner=OWNER,
    description="What each origin's station observed during an hour, effective at the end of it.",
    tags=DOMAIN,
)

planes = TableSource(
    "planes",
    schema={"tail_number": String, "effective_at": Timestamp, "built": Int64, "seats": Int64},
    effective="effective_at",
    path="${FOREBAY_HOME}/tables/planes.parquet",
    owner=OWNER,
    description="The register of aircraft, each effective from 1 January of the year it was built.",
    tags=DOMAIN,
)
