"""Features refreshed on a schedule: each function sees only rows that were effective before `{end}`."""

from __future__ import annotations

from typing import Any

from feature_defs.entities import aircraft, origin_airport
from feature_defs.sources import DOMAIN, HISTORY_START, OWNER, planes, weather
from forebay import Feature, Float64, Int64, batch_view


@batch_view(
    entity=origin_airport,
    version=1,
    sources=[weather],
    partitions="hourly",
    refresh="0 * * * *",
    ttl="6h",
    reach="3h",
    history_start=HISTORY_START,
    features=[
        Feature("temperature", Float64, default=50.0),
        Feature("wind_speed", Float64, default=10.0),
        Feature("precipitation", Float64, default=0.0),
        Feature("visibility", Float64, default=10.0),
    ],
    owner=OWNER,
    description="The newest hourly observation at each origin (Fahrenheit, miles an hour, inches, miles).",
    tags=DOMAIN,
)
def origin_weather(context: Any, weather: Any) -> Any:
    """The newest observation of each origin within reach."""
    return context.sql("""
        SELECT origin,
               arg_max(temperature, effective_at) AS temperature,
               arg_max(wind_speed, effective_at) AS wind_speed,
               arg_max(precipitation, effective_at) AS precipitation,
               arg_max(visibility, effective_at) AS visibility,
               {end} AS event_timestamp
        FROM weather
        GROUP BY origin
    """)


@batch_view(
    entity=aircraft,
    version=1,
    sources=[planes],
    partitions="daily",
    refresh="0 1 * * *",
    ttl="2d",
    history_start=HISTORY_START,
    features=[
        Feature("aircraft_age_years", Int64, default=-1),
        Feature("aircraft_seats", Int64, default=0),
    ],
    owner=OWNER,
    description="How old an aircraft is and how many seats it has, from the register.",
    tags=DOMAIN,
)
def aircraft_register(context: Any, planes: Any) -> Any:
    """The register as it stood at the end of the day."""
    return context.sql("""
        SELECT tail_number,
               year({end}) - built AS aircraft_age_years,
               seats AS aircraft_seats,
               {end} AS event_timestamp
        FROM planes
    """)
