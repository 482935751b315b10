"""What models ask for: a service is a pinned list of features under one name and version."""

from __future__ import annotations

from feature_defs.batch import aircraft_register, origin_weather
from feature_defs.delays import aircraft_legs, carrier_delays, origin_delays
from feature_defs.sources import DOMAIN, OWNER
from forebay import FeatureService

arrival_delay = FeatureService(
    "arrival_delay",
    version=1,
    features=[origin_delays, carrier_delays, aircraft_legs, origin_weather, aircraft_register],
    owner=OWNER,
    description="Will this flight arrive more than 15 minutes late? Asked at its scheduled departure.",
    tags=DOMAIN,
)
