"""Features over windows of departures and arrivals: how late flights have been, up to this instant."""

from __future__ import annotations

from feature_defs.entities import aircraft, airline, origin_airport
from feature_defs.sources import DOMAIN, OWNER, arrivals, departures
from forebay import Count, Last, Max, Mean, SecondsSince, StdDev, WindowedView

ORIGIN_WINDOWS = ["1h", "3h", "24h", "7d"]
CARRIER_WINDOWS = ["24h", "7d", "30d"]

origin_delays = WindowedView(
    "origin_delays",
    version=1,
    entity=origin_airport,
    source=departures,
    features=[
        Count("origin_departures", windows=ORIGIN_WINDOWS, default=0),
        Mean("origin_delay_mean", of="dep_delay", windows=ORIGIN_WINDOWS, default=0.0),
        Max("origin_delay_max", of="dep_delay", windows=ORIGIN_WINDOWS, default=0),
        StdDev("origin_delay_stddev", of="dep_delay", windows=ORIGIN_WINDOWS, default=0.0),
    ],
    freshness="1m",
    refresh="30 0 * * *",
    owner=OWNER,
    description="How late flights have been leaving an airport. Cancelled flights count, without a delay.",
    tags=DOMAIN,
)

carrier_delays = WindowedView(
    "carrier_delays",
    version=1,
    entity=airline,
    source=departures,
    features=[
        Count("carrier_departures", windows=CARRIER_WINDOWS, default=0),
        Mean("carrier_delay_mean", of="dep_delay", windows=CARRIER_WINDOWS, default=0.0),
        Max("carrier_delay_max", of="dep_delay", windows=CARRIER_WINDOWS, default=0),
        StdDev("carrier_delay_stddev", of="dep_delay", windows=CARRIER_WINDOWS, default=0.0),
    ],
    freshness="1m",
    refresh="30 0 * * *",
    owner=OWNER,
    description="How late an airline's flights have been leaving New York.",
    tags=DOMAIN,
)

aircraft_legs = WindowedView(
    "aircraft_legs",
    version=1,
    entity=aircraft,
    source=arrivals,
    features=[
        Last("last_arrival_delay", of="arr_delay", windows=[None], default=0),
        SecondsSince("seconds_since_arrival", windows=[None], default=-1.0),
        Count("legs", windows=["24h", None], default=0),
    ],
    freshness="1m",
    refresh="30 0 * * *",
    owner=OWNER,
    description="Where an aircraft's day stands: how late it last arrived, how long ago, and how much it has flown.",
    tags=DOMAIN,
)
