"""The demo's judge: it finds every difference, and calls an entity across the seam exactly when it needs both sides.

     cut = 10          T = 20
───●────┼────●───────────┼──→   N1  both sides
───●────┼────────────────┼──→   N2  batch alone
────────┼────●───────────┼──→   N3  stream alone
────────┼────────────────●──→   N4  nothing before T
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from demo.flights import Flights
from demo.probes import Pause, across_seam, different, judge, with_instant
from feature_defs.delays import aircraft_legs
from forebay import FeatureService

CUT_US, T_US = 10, 20
LEGS = FeatureService("legs", version=1, features=[aircraft_legs["legs_lifetime"]])


def flights() -> Flights:
    """Four aircraft that arrived as drawn above."""
    arrivals = pa.table(
        {
            "tail_number": ["N1", "N1", "N2", "N3", "N4"],
            "ts": pa.array([5, 15, 5, 15, 20], pa.timestamp("us", "UTC")),
        }
    )
    return Flights(arrivals, arrivals, arrivals, arrivals, arrivals, arrivals)


def pause(legs: list[int | None]) -> Pause:
    """What was read online for N1 to N4."""
    rows = pa.table({"tail_number": ["N1", "N2", "N3", "N4"], "legs_lifetime": pa.array(legs, pa.int64())})
    return Pause(T_US, {aircraft_legs.key: np.full(len(legs), CUT_US)}, rows)


def test_across_the_seam_means_events_on_both_sides_before_the_instant() -> None:
    assert across_seam(flights(), aircraft_legs, "tail_number", pause([2, 1, 1, 0])) == {"N1"}


def test_equal_values_are_no_mismatch() -> None:
    read = pause([2, 1, 1, 0])
    verdict = judge(read, with_instant(read.online, T_US), LEGS, flights())
    assert (verdict.probes, verdict.across_seam, verdict.one_side, verdict.mismatches) == (4, 1, 3, 0)


def test_every_difference_is_a_mismatch_and_is_shown_with_both_values() -> None:
    read = pause([2, 1, None, 0])
    training = with_instant(pause([3, 1, 1, 0]).online, T_US)
    verdict = judge(read, training, LEGS, flights())
    assert verdict.mismatches == 2
    assert [(wrong["entity"], wrong["online"], wrong["training"]) for wrong in verdict.shown] == [
        ("tail_number=N1", "2", "3"),
        ("tail_number=N3", "None", "1"),
    ]


def test_the_last_bit_counts() -> None:
    online = pa.chunked_array([pa.array([0.1 + 0.2, None, None, 1.0])])
    training = pa.chunked_array([pa.array([0.3, None, 1.0, 1.0])])
    assert different(online, training).tolist() == [True, False, True, False]
