"""The oracle: what a feature's value is, in nested loops over plain events. It imports nothing from Forebay, on
purpose.

An event is `(entity, ts_us, event_id, value)`; a value is None, an int (in units of 10^-scale), a float, a str or a
bool.
"""

import math
from fractions import Fraction

DAY_US = 86_400_000_000


def counted(events, entity, instant_us, window_us, hop_us):
    """The events in the window, in order: the law. Of one (ts, event_id) the value decides, never the arrival."""
    if window_us is None:
        start = -math.inf
    else:
        start = (instant_us - window_us) // hop_us * hop_us
    return sorted(
        ((ts, name.encode(), value) for e, ts, name, value in events if e == entity and start <= ts < instant_us),
        key=lambda event: (*event[:2], event[2] is not None, event[2]),
    )


def oracle(kind, events, entity, instant_us, window_us, hop_us, *, of, scale, ttl_us, default):
    """(value, status) of one feature."""
    window = counted(events, entity, instant_us, window_us, hop_us)
    values = [value for _, _, value in window if value is not None] if of else [ts for ts, _, _ in window]
    if not values:
        return default, "DEFAULT_MISSING"
    if ttl_us is not None and instant_us - window[-1][0] > ttl_us:
        return default, "DEFAULT_EXPIRED"
    value = AGGREGATES[kind](values, 10**scale, instant_us)
    too_large = kind == "Sum" and isinstance(value, int) and not -(2**63) <= value < 2**63
    return (default, "DEFAULT_ERROR") if too_large else (value, "PRESENT")


def total(values):
    return math.fsum(values) if isinstance(values[0], float) else sum(values)


def variance(values, unit):
    exact = [Fraction(value) / unit for value in values]
    return float(sum(x * x for x in exact) / len(exact) - (sum(exact) / len(exact)) ** 2)


AGGREGATES = {
    "Count": lambda values, unit, instant_us: len(values),
    "Sum": lambda values, unit, instant_us: total(values),
    "Mean": lambda values, unit, instant_us: float(sum(map(Fraction, values)) / len(values) / unit),
    "Min": lambda values, unit, instant_us: min(values),
    "Max": lambda values, unit, instant_us: max(values),
    "Variance": lambda values, unit, instant_us: variance(values, unit),
    "StdDev": lambda values, unit, instant_us: math.sqrt(variance(values, unit)),
    "First": lambda values, unit, instant_us: values[0],
    "Last": lambda values, unit, instant_us: values[-1],
    "SecondsSince": lambda values, unit, instant_us: (instant_us - values[-1]) / 1e6,
}
