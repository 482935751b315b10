"""The loops of the training kernel, compiled: what `forebay.core.sweep` does to the events of a chunk of entities.

May live here: small functions of plain arrays that numba compiles, each over *runs*: the events of entity e of a chunk
are the rows `starts[e]:starts[e + 1]`, in order of (ts, id), and its spine rows are `rows[e]:rows[e + 1]`, in order of
their instants. No definitions, no tiles. This module needs the extra `fast`; `sweep` imports it, and `asof` for many
rows.

A window at an instant is a range of events `[low, high)`. Within a run both edges only ever move forward, so one sweep
finds all of them, and one more per column merges them:

    integers   sums of the first 0, 1, … n values; a range is the difference of two, exact in 128 bits
    extremes   a stack of the rows that nothing after them beats; a range's extreme is the first of them from `low` on
    counts     how often each key is in the window, and a bit for each that is: gained and lost one event at a time
    floats     a binary tree over the run, of which a range is at most 2·log2(n) nodes: rounding is bounded by the
               values in the range, whatever came before it (a difference of running sums would not be)

Few functions with few signatures, compiled at the first call and kept in numba's cache, so that a second process
compiles nothing. Arrays are int64 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Function = TypeVar("Function", bound=Callable[..., Any])
Array = npt.NDArray[Any]


def compiled(function: Function) -> Function:
    """The function, compiled when it is first called; without the GIL, cached where a folder can be written to."""
    try:
        made = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no folder for its cache
        made = numba.njit(nogil=True)(function)
    return cast(Function, made)


@compiled
def group(codes: Array, wanted: Array, starts: Array, order: Array) -> None:
    """The row numbers of each wanted code, ascending, are `order[starts[code]:starts[code + 1]]`: a stable counting
    sort. `starts` are zeros at first, and `wanted` may be empty: then all are.
    """
    for code in codes:
        if len(wanted) == 0 or wanted[code]:
            starts[code + 1] += 1
    for code in range(1, len(starts)):
        starts[code] += starts[code - 1]
    places = starts.copy()
    for i in range(len(codes)):
        code = codes[i]
        if len(wanted) == 0 or wanted[code]:
            order[places[code]] = i
            places[code] += 1


@compiled
def cut(codes: Array, entities: int, bits: int, edges: Array, order: Array, local: Array) -> None:
    """Bring rows in order of the chunk that their entity is of, as `forebay.core.chunked` cuts them: a stable counting
    sort. Codes that are not in `[0, entities)` are nobody's.

    `edges` (zeros at first) become where each chunk begins in `order`, and `local` the number that each entity has in
    its chunk.
    """
    mask = (1 << bits) - 1
    for code in codes:
        if 0 <= code < entities:
            edges[(code & mask) + 1] += 1
    for i in range(1, len(edges)):
        edges[i] += edges[i - 1]
    places = edges.copy()
    for i in range(len(codes)):
        code = codes[i]
        if 0 <= code < entities:
            at = places[code & mask]
            order[at], local[at] = i, code >> bits
            places[code & mask] = at + 1


@compiled
def arrange(order: Array, instants: Array, starts: Array, sorted_us: Array) -> int:
    """Sort each run of `order` by instant, where it isn't sorted already; the number of neighbours that are tied."""
    tied = 0
    for e in range(len(starts) - 1):
        first, last = starts[e], starts[e + 1]
        ascends = True
        for i in range(first, last):
            sorted_us[i] = instants[order[i]]
            if i > first and sorted_us[i] <= sorted_us[i - 1]:
                tied += sorted_us[i] == sorted_us[i - 1]
                ascends = ascends and sorted_us[i] == sorted_us[i - 1]
        if not ascends:
            found = np.argsort(sorted_us[first:last], kind="mergesort")
            order[first:last] = order[first:last][found]
            sorted_us[first:last] = sorted_us[first:last][found]
            tied += 1
    return tied


@compiled
def edges(
    ts: Array, starts: Array, instants: Array, rows: Array, lengths: Array, hops: Array, low: Array, high: Array
) -> None:
    """The ranges of all windows at all instants: `high[r]` and `low[w, r]`; a length of −1 is the lifetime."""
    for e in range(len(starts) - 1):
        at = starts[e]
        for r in range(rows[e], rows[e + 1]):
            while at < starts[e + 1] and ts[at] < instants[r]:
                at += 1
            high[r] = at
        for w in range(len(lengths)):
            at = starts[e]
            for r in range(rows[e], rows[e + 1]):
                if lengths[w] >= 0:
                    edge = instants[r] - lengths[w]
                    edge -= edge % hops[w]
                    while at < high[r] and ts[at] < edge:
                        at += 1
                low[w, r] = at


@compiled
def covered(
    low: Array, high: Array, first: int, bounds: Array, at: Array, rows: Array, lows: Array, highs: Array
) -> None:
    """The ranges that have an event, of one window fewer than there are `bounds` (zeros), from the `first` on.

    Those of window w are `bounds[w - first]:bounds[w - first + 1]`: where they lie in `low`, their rows, their edges.
    """
    used, count = 0, len(high)
    for w in range(first, first + len(bounds) - 1):
        for r in range(count):
            if high[r] > low[w, r]:
                at[used], rows[used], lows[used], highs[used] = w * count + r, r, low[w, r], high[r]
                used += 1
        bounds[w - first + 1] = used


@compiled
def differences(sums: Array, low: Array, high: Array, below: Array, above: Array) -> None:
    """Of running sums those at `high` less those at `low`, as a low word (uint64) and a high one."""
    for i in range(len(low)):
        total = sums[high[i]] - sums[low[i]]
        below[i], above[i] = np.uint64(total), total >> 63


@compiled
def wide_differences(words: Array, upper: Array, low: Array, high: Array, below: Array, above: Array) -> None:
    """The same of sums of two words."""
    for i in range(len(low)):
        first, last = words[low[i]], words[high[i]]
        below[i], above[i] = last - first, upper[high[i]] - upper[low[i]] - np.int64(last < first)


@compiled
def seek(code: Array, from_us: Array, starts: Array, ends: Array, instants: Array, place: Array) -> None:
    """The first place of each stored row's entity that it counts at, where there is one.

    The places of entity e are `starts[e]:ends[e]`, in order of their instants; codes beyond them are nobody's.
    """
    for i in range(len(code)):
        e = code[i]
        if e < 0 or e >= len(ends):
            continue
        low, high = starts[e], ends[e]
        while low < high:
            middle = (low + high) >> 1
            if instants[middle] < from_us[i]:
                low = middle + 1
            else:
                high = middle
        if low < ends[e]:
            place[i] = low


@compiled
def keep(
    place: Array,
    event_us: Array,
    created_us: Array,
    numbers: Array,
    best_event: Array,
    best_created: Array,
    best_row: Array,
) -> None:
    """Keep stored rows at their places (−1: nowhere), where they are better than what is there."""
    for i in range(len(place)):
        at = place[i]
        if at < 0 or event_us[i] < best_event[at]:
            continue
        if event_us[i] == best_event[at]:
            if created_us[i] < best_created[at]:
                continue
            if created_us[i] == best_created[at] and numbers[i] < best_row[at]:
                continue
        best_event[at], best_created[at], best_row[at] = event_us[i], created_us[i], numbers[i]


@compiled
def carry(starts: Array, ends: Array, best_event: Array, best_created: Array, best_row: Array) -> None:
    """Carry the best row of each place on to the next of its entity, where that has no better one."""
    for e in range(len(starts)):
        for at in range(starts[e] + 1, ends[e]):
            was = at - 1
            if best_event[was] < best_event[at]:
                continue
            if best_event[was] == best_event[at]:
                if best_created[was] < best_created[at]:
                    continue
                if best_created[was] == best_created[at] and best_row[was] <= best_row[at]:
                    continue
            best_event[at], best_created[at], best_row[at] = best_event[was], best_created[was], best_row[was]


@compiled
def gather(values: Array, order: Array, out: Array) -> None:
    """`values[order]`."""
    for i in range(len(order)):
        out[i] = values[order[i]]


@compiled
def running_sums(values: Array, low: Array, high: Array) -> None:
    """Sums of the first 0, 1, … n values in 128 bits: a low word (uint64) and a high one."""
    total, above = np.uint64(0), np.int64(0)
    low[0], high[0] = total, above
    for i in range(len(values)):
        total += np.uint64(values[i])
        above += (values[i] >> 63) + np.int64(total < np.uint64(values[i]))
        low[i + 1], high[i + 1] = total, above


@compiled
def running_squares(values: Array, low: Array, high: Array) -> None:
    """Sums of the first 0, 1, … n squares in 128 bits; |value| ≤ `int128.VARIANCE_UNITS_MAX`."""
    total, above = np.uint64(0), np.uint64(0)
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    low[0], high[0] = total, np.int64(above)
    for i in range(len(values)):
        size = np.uint64(abs(values[i]))
        below, upper = size & mask, size >> half
        cross = (below * upper) << np.uint64(1)
        square = below * below + (cross << half)
        total += square
        above += upper * upper + (cross >> half)
        above += np.uint64(square < below * below) + np.uint64(total < square)
        low[i + 1], high[i + 1] = total, np.int64(above)


@compiled
def extremes(
    values: Array, valid: Array, starts: Array, rows: Array, low: Array, high: Array, largest: bool, out: Array
) -> None:
    """The least (or largest) valid value of every range; `valid` may be empty: then all are. `out` is [w, r].

    The stack holds, of the rows before `high`, those that no later one equals or beats: going down it, rows get older
    and values better. So the first of them from `low` on is the best of the range, whichever the window.
    """
    stack = np.empty(max(np.max(starts[1:] - starts[:-1]), 1), np.int64)
    for e in range(len(starts) - 1):
        at, top = starts[e], 0
        for r in range(rows[e], rows[e + 1]):
            while at < high[r]:
                if len(valid) == 0 or valid[at]:
                    value = values[at]
                    while top and (values[stack[top - 1]] <= value if largest else values[stack[top - 1]] >= value):
                        top -= 1
                    stack[top] = at
                    top += 1
                at += 1
            for w in range(len(low)):
                first, last = 0, top
                while first < last:
                    middle = (first + last) >> 1
                    if stack[middle] < low[w, r]:
                        first = middle + 1
                    else:
                        last = middle
                if first < top:
                    out[w, r] = values[stack[first]]


BIT_OF = np.zeros(64, np.int64)
BIT_OF[[((1 << i) * 0x03F79D71B4CB0A89 % 2**64) >> 58 for i in range(64)]] = np.arange(64)
"""The number of a lone bit, by its de Bruijn product. Source: Leiserson, Prokop, Randall (1998)."""


@compiled
def counted(
    numbers: Array,
    first: Array,
    low: Array,
    high: Array,
    owner: Array,
    most: int,
    saturates: bool,
    held: Array,
    there: Array,
    state: Array,
    found: Array,
    counts: Array,
    sizes: Array,
) -> None:
    """The keys in every range, in order, and how often: `found` (an index of keys), `counts`, and `sizes` of ranges.

    Events have the `numbers` (int32) of their keys among those of their entity, −1 for none; keys of entity e are
    `first[e]:first[e + 1]`. `held` counts by number, the bits of `there` (uint64) say which are not 0, and `state` is
    the entity, the edges and the number of keys that these are of. At most `most` keys of a range are found (0: all);
    of one that `saturates` and has `most`, one, counted −1.
    """
    used, one, tables = 0, np.uint64(1), np.uint64(58)
    for r in range(len(low)):
        if state[0] != owner[r] or low[r] < state[1] or high[r] < state[2]:
            for i in range(state[1], state[2]):
                if numbers[i] >= 0:
                    held[numbers[i]] = 0
                    there[numbers[i] >> 6] = 0
            state[0], state[1], state[2], state[3] = owner[r], low[r], low[r], 0
        for i in range(state[2], high[r]):
            key = numbers[i]
            if key >= 0:
                if held[key] == 0:
                    there[key >> 6] |= one << np.uint64(key & 63)
                    state[3] += 1
                held[key] += 1
        for i in range(state[1], low[r]):
            key = numbers[i]
            if key >= 0:
                held[key] -= 1
                if held[key] == 0:
                    there[key >> 6] &= ~(one << np.uint64(key & 63))
                    state[3] -= 1
        state[1], state[2] = low[r], high[r]
        if saturates and state[3] >= most:
            found[used], counts[used], sizes[r] = first[owner[r]], -1, 1
            used += 1
            continue
        size, wanted = 0, state[3] if most == 0 else min(state[3], most)
        word = 0
        while size < wanted:
            bits = there[word]
            while bits != 0 and size < wanted:
                lone = bits & (~bits + one)
                key = (word << 6) + BIT_OF[(lone * np.uint64(0x03F79D71B4CB0A89)) >> tables]
                found[used], counts[used] = first[owner[r]] + key, held[key]
                used += 1
                size += 1
                bits &= bits - one
            word += 1
        sizes[r] = size


@compiled
def float_sums(values: Array, starts: Array, rows: Array, low: Array, high: Array, out: Array) -> None:
    """Sums of every range, by trees; values that are not valid are 0.

    Source: the bottom-up segment tree. Node i of n leaves merges nodes 2i and 2i + 1; leaves are the nodes from n on.
    """
    tree = np.empty(2 * max(np.max(starts[1:] - starts[:-1]), 1))
    for e in range(len(starts) - 1):
        n = starts[e + 1] - starts[e]
        if n == 0 or rows[e] == rows[e + 1]:
            continue
        tree[n : 2 * n] = values[starts[e] : starts[e + 1]]
        for i in range(n - 1, 0, -1):
            tree[i] = tree[2 * i] + tree[2 * i + 1]
        for w in range(len(low)):
            for r in range(rows[e], rows[e + 1]):
                first, last, total = low[w, r] - starts[e] + n, high[r] - starts[e] + n, 0.0
                while first < last:
                    if first & 1:
                        total += tree[first]
                        first += 1
                    if last & 1:
                        last -= 1
                        total += tree[last]
                    first, last = first >> 1, last >> 1
                out[w, r] = total


@compiled
def fading_sums(
    values: Array, ts: Array, half_life: float, starts: Array, rows: Array, low: Array, high: Array, out: Array
) -> None:
    """Sums that halve every `half_life`, as of the newest event of every range, by trees as in `float_sums`.

    A node holds its sum as of the newest of its events, so nothing grows beyond what was added.
    """
    longest = max(np.max(starts[1:] - starts[:-1]), 1)
    tree, ages = np.empty(2 * longest), np.empty(2 * longest, np.int64)
    for e in range(len(starts) - 1):
        n = starts[e + 1] - starts[e]
        if n == 0 or rows[e] == rows[e + 1]:
            continue
        tree[n : 2 * n] = values[starts[e] : starts[e + 1]]
        ages[n : 2 * n] = ts[starts[e] : starts[e + 1]]
        for i in range(n - 1, 0, -1):
            left, right = 2 * i, 2 * i + 1
            at = max(ages[left], ages[right])
            ages[i] = at
            tree[i] = tree[left] * 2.0 ** ((ages[left] - at) / half_life)
            tree[i] += tree[right] * 2.0 ** ((ages[right] - at) / half_life)
        for w in range(len(low)):
            for r in range(rows[e], rows[e + 1]):
                first, last, total = low[w, r] - starts[e] + n, high[r] - starts[e] + n, 0.0
                at = ts[high[r] - 1] if high[r] > low[w, r] else 0
                while first < last:
                    if first & 1:
                        total += tree[first] * 2.0 ** ((ages[first] - at) / half_life)
                        first += 1
                    if last & 1:
                        last -= 1
                        total += tree[last] * 2.0 ** ((ages[last] - at) / half_life)
                    first, last = first >> 1, last >> 1
                out[w, r] = total


@compiled
def joined(left: tuple[float, float, float], right: tuple[float, float, float]) -> tuple[float, float, float]:
    """(n, mean, squared deviations) of the union of two samples.

    Source: Chan, Golub, LeVeque (1979), eq. 2.1, as in `forebay.algebra.partials`.
    """
    n = left[0] + right[0]
    if left[0] == 0.0:
        return right
    if right[0] == 0.0:
        return left
    delta = right[1] - left[1]
    return n, left[1] + delta * (right[0] / n), left[2] + right[2] + delta * delta * (left[0] * right[0] / n)


@compiled
def float_moments(values: Array, valid: Array, starts: Array, rows: Array, low: Array, high: Array, out: Array) -> None:
    """Squared deviations from the mean of every range, by trees as in `float_sums`."""
    tree = [(0.0, 0.0, 0.0)] * (2 * max(np.max(starts[1:] - starts[:-1]), 1))
    for e in range(len(starts) - 1):
        n = starts[e + 1] - starts[e]
        if n == 0 or rows[e] == rows[e + 1]:
            continue
        for i in range(n):
            there = len(valid) == 0 or valid[starts[e] + i]
            tree[n + i] = (1.0, values[starts[e] + i], 0.0) if there else (0.0, 0.0, 0.0)
        for i in range(n - 1, 0, -1):
            tree[i] = joined(tree[2 * i], tree[2 * i + 1])
        for w in range(len(low)):
            for r in range(rows[e], rows[e + 1]):
                first, last, total = low[w, r] - starts[e] + n, high[r] - starts[e] + n, (0.0, 0.0, 0.0)
                while first < last:
                    if first & 1:
                        total = joined(total, tree[first])
                        first += 1
                    if last & 1:
                        last -= 1
                        total = joined(total, tree[last])
                    first, last = first >> 1, last >> 1
                out[w, r] = total[2]
