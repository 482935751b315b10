"""The oracle: what a feature's value is, in nested loops over plain events. It imports nothing from Forebay, on
purpose.

An event is `(entity, ts_us, event_id, value)`; a value is None, an int (in units of 10^-scale), a float, a str or a
bool.
"""

import math
import struct
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


def oracle(kind, events, entity, instant_us, window_us, hop_us, *, of, scale, ttl_us, default, parameters=None):
    """(value, status) of one feature; `parameters` are the aggregation's own, numbers in stored units."""
    window = counted(events, entity, instant_us, window_us, hop_us)
    there = [(ts, value) for ts, _, value in window if value is not None or not of]
    values = [value if of else ts for ts, value in there]
    if not values:
        return default, "DEFAULT_MISSING"
    if ttl_us is not None and instant_us - window[-1][0] > ttl_us:
        return default, "DEFAULT_EXPIRED"
    if kind in WITH_PARAMETERS:
        value = WITH_PARAMETERS[kind](values, **(parameters or {}))
        value = value / 10**scale if kind == "Quantile" and value is not None else value
    elif kind in ("DecayedCount", "DecayedSum"):
        weights = [2.0 ** ((ts - instant_us) / parameters["half_life_us"]) for ts, _ in there]
        summed = [1.0] * len(values) if kind == "DecayedCount" else [value / 10**scale for value in values]
        value = math.fsum(x * weight for x, weight in zip(summed, weights, strict=True))
    else:
        value = AGGREGATES[kind](values, 10**scale, instant_us)
    too_large = kind == "Sum" and isinstance(value, int) and not -(2**63) <= value < 2**63
    return (default, "DEFAULT_ERROR") if too_large or value is None else (value, "PRESENT")


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


def top(values, k, cap):
    """The most frequent first, of equally frequent ones the smaller; nothing where more than `cap` are distinct."""
    distinct = sorted(set(values), key=lambda value: (-values.count(value), as_bytes(value)))
    return tuple(distinct[:k]) if len(distinct) <= cap else None


def as_bytes(value):
    return value.encode() if isinstance(value, str) else value


def quantile(values, q):
    """The middle of the bin of the value of rank q: of 64 equal parts of an octave, or of the whole numbers in it."""
    value = sorted(values)[round(q * 10**6) * (len(values) - 1) // 10**6]
    fraction, exponent = math.frexp(abs(float(value)))
    if exponent <= -40 or value == 0:
        return 0.0
    if exponent > 64:
        return None
    step = math.ldexp(1, exponent - 7)
    low = math.floor(fraction * 128) * step
    high = low + step
    middle = (low + high) / 2 if isinstance(value, float) else (math.ceil(low) + math.ceil(high) - 1) / 2
    return math.copysign(middle, value)


def distinct(values, k):
    """How many distinct hashes; of more than k the density of the k + 1 smallest."""
    found = sorted({stable_hash(value) for value in values})
    return len(found) if len(found) <= k else round(float(k * 2**64) / float(found[k]))


def stable_hash(value):
    """SplitMix64 over words of eight bytes, then over the length."""
    if isinstance(value, str):
        data = value.encode()
    else:
        data = struct.pack("<d", value + 0.0) if isinstance(value, float) else struct.pack("<q", value)
    state = 0x9E3779B97F4A7C15
    for first in range(0, len(data), 8):
        state = mixed(state ^ int.from_bytes(data[first : first + 8], "little"))
    return mixed(state ^ len(data))


def mixed(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def histogram(values, edges):
    """How many values begin at no edge, at the first, at the second, …"""
    starts = [sum(edge <= value for edge in edges) for value in values]
    return tuple(starts.count(i) for i in range(len(edges) + 1))


WITH_PARAMETERS = {
    "FirstK": lambda values, k: tuple(values[:k]),
    "LastK": lambda values, k: tuple(values[-k:]),
    "TopK": top,
    "Quantile": quantile,
    "CountDistinct": distinct,
    "Histogram": histogram,
}
