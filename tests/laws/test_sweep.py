"""The training kernel == its NumPy twin == the oracle, however the work is cut into chunks and threads."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forebay import Count, FirstK, Last, Max, Sum, WindowedView
from forebay.algebra.lifted import Lifted
from forebay.algebra.partials import Partial
from forebay.algebra.ragged import Ragged
from forebay.core import chunked, ranges, sweep
from forebay.core.cell_ranges import cell_ranges
from forebay.core.cell_sweep import SweptRanges
from forebay.core.events import Events, is_unused
from forebay.core.layout import Layout
from forebay.core.values import FeatureColumn, Status
from forebay.instants import DAY_US
from forebay.language.types import Float64Type
from tests.laws.world import COLUMNS, EVENTS, INSTANTS, MIDNIGHT_US, VIEW, Event, as_events, check_all

LAYOUT = Layout.of(VIEW)
NOTHING: dict[str, object] = dict.fromkeys(COLUMNS)
ONE = NOTHING | {"wide": 2**63 - 1, "whole": 2**47, "money": -(2**47), "real": 0.1, "flag": True, "word": "a"}

SLACK = {"Sum": 1e3, "Mean": 1e3, "Variance": 1e15, "StdDev": 1e7}
"""What the law leaves to floats that cancel: 1e-9·|x| of the largest value here, 1e-9·x² of its square."""

LARGE = {"whole": 2.0**47, "wide": 2.0**63, "money": 2.0**47, "real": 1e12}
"""The largest value of a column; of a hundred of them, the law leaves 1e-7 of it."""


@contextmanager
def chunks_of(rows: int) -> Iterator[None]:
    """Chunks of so many rows, within the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "CHUNK_ROWS", rows)
        patch.setattr(sweep, "PIECE_ROWS", 3 * rows)
        yield


def asked(events: list[Event], instants_us: list[int]) -> tuple[Events, list[tuple[str, int]], np.ndarray, np.ndarray]:
    """The core's events, and rows that ask about every entity, and about nobody, at every instant."""
    batch = as_events(events)
    rows = [(key, instant_us) for instant_us in instants_us for key in ("bob", "nobody", "ann", "eve")]
    names = batch.keys.to_pylist()
    code = np.array([names.index(key) if key in names else -1 for key, _ in rows], np.int64)
    return batch, rows, code, np.array([at for _, at in rows], np.int64)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.lists(INSTANTS, min_size=1, max_size=6), st.sampled_from([1, 10, 2**18]), st.sampled_from([1, 2]))
@example([Event("ann", MIDNIGHT_US, "a", ONE)] * 2, [MIDNIGHT_US, MIDNIGHT_US + 1], 1, 2)
@example([Event("ann", MIDNIGHT_US, "a", NOTHING), Event("ann", MIDNIGHT_US, "a", ONE)], [MIDNIGHT_US + 1], 1, 2)
def test_the_kernel_is_the_oracle(events: list[Event], instants_us: list[int], chunk: int, threads: int) -> None:
    batch, rows, code, at_us = asked(events, instants_us)
    with chunks_of(chunk):
        swept = sweep.answer_sweep(LAYOUT, batch, code, at_us, threads=threads)
    ranged = ranges.answer_ranges(LAYOUT, batch, code, at_us)
    check_all([swept, ranged], events, rows)
    same_bits(swept, ranged, rounded=False)


def many(seed: int, count: int) -> tuple[Events, np.ndarray, np.ndarray]:
    """More events than a test compares with the oracle: of few entities, tied and repeated, at long and short reach."""
    chance = random.Random(seed)
    events = [
        Event(
            chance.choice(["ann", "bob", "eve", "eve"]),
            MIDNIGHT_US + chance.choice([1, 1_000, 10**6, 10**8]) * chance.randrange(2_000),
            f"{chance.randrange(40)}",
            NOTHING
            | {
                "whole": chance.choice([None, chance.randint(-5, 5), chance.randint(-(2**47), 2**47)]),
                "wide": chance.choice([None, chance.randint(-(2**63), 2**63 - 1)]),
                "money": chance.randint(-500, 500),
                "real": chance.choice([None, chance.uniform(-1, 1), chance.uniform(-1e12, 1e12)]),
                "flag": chance.choice([None, True, False]),
                "moment": chance.randrange(10**15),
                "word": chance.choice([None, "a", "bé"]),
            },
        )
        for _ in range(count)
    ]
    batch, _rows, code, at_us = asked(events, [MIDNIGHT_US + chance.randrange(2 * 10**11) for _ in range(300)])
    return batch, code, at_us


@pytest.mark.parametrize("seed", range(3))
def test_the_kernel_is_its_twin_on_long_runs(seed: int) -> None:
    batch, code, at_us = many(seed, 3_000)
    expected = ranges.answer_ranges(LAYOUT, batch, code, at_us)
    for chunk, threads in ((100, 2), (2**18, 1)):
        with chunks_of(chunk):
            same_bits(sweep.answer_sweep(LAYOUT, batch, code, at_us, threads=threads), expected)


def test_a_name_alone_gives_what_it_gives_among_others() -> None:
    batch, code, at_us = many(7, 500)
    whole = {column.feature.name: column for column in sweep.answer_sweep(LAYOUT, batch, code, at_us)}
    for name in ("Last_word_1h", "Count_all_30s", "Variance_real_lifetime"):
        (alone,) = sweep.answer_sweep(LAYOUT, batch, code, at_us, [name])
        same_bits([alone], [whole[name]])


def test_each_window_may_be_asked_for_other_aggregations() -> None:
    """Windows of which the same is asked are finished as one; here no two aggregations have the same."""
    batch, code, at_us = many(7, 500)
    whole = {column.feature.name: column for column in sweep.answer_sweep(LAYOUT, batch, code, at_us)}
    chance = random.Random(2)
    for share in (0.1, 0.5, 0.9):
        names = [name for name in whole if chance.random() < share]
        found = sweep.answer_sweep(LAYOUT, batch, code, at_us, names, bare=True)
        assert [column.feature.name for column in found] == names
        for one in found:
            assert one.to_arrow().equals(whole[one.feature.name].to_arrow()), one.feature.name


def test_threads_and_chunks_change_no_bit() -> None:
    batch, code, at_us = many(11, 2_000)
    expected = sweep.answer_sweep(LAYOUT, batch, code, at_us, threads=1)
    for chunk, threads in ((50, 3), (1_000, 2)):
        with chunks_of(chunk):
            found = sweep.answer_sweep(LAYOUT, batch, code, at_us, threads=threads)
        for one, other in zip(found, expected, strict=True):
            assert bits(one) == bits(other), one.feature.name


def test_swept_cells_are_those_of_the_trees_whatever_the_blocks() -> None:
    """Ranges of entities with more keys than fit some words, in order and out of order, in one call and in many."""
    rng = np.random.default_rng(5)
    starts = np.array([0, 0, 700, 701, 2_000])
    values = rng.integers(-300, 300, 2_000) * rng.choice([1, 10**6], 2_000)
    column = Lifted(values, rng.random(2_000) < 0.9, np.arange(2_000), np.zeros(2_000, "S1"))
    owner = np.sort(rng.choice([1, 1, 2, 3, 3], 400))
    edges = np.sort(rng.integers(starts[owner], starts[owner + 1] + 1, (2, 400)), axis=0)
    edges[0] = np.minimum(edges[0], starts[owner + 1] - 1)
    forward = np.lexsort((edges[0], edges[1], owner))
    partials = [Partial("bins", "c"), Partial("hashes", "c", "100", (100,)), Partial("values", "c", "90", (90,))]
    for partial in [*partials, Partial("between", "c", "x", (-5, 0, 10**7))]:
        tree, swept = cell_ranges(partial, column, 1_299), SweptRanges(partial, column, starts)
        for order in (forward, rng.permutation(400)):
            low, high = edges[0][order], np.maximum(edges[1][order], edges[0][order] + 1)
            expected = tree.merge(low, high)
            assert len(expected.cells) > 1_000
            for pieces in (1, 7):
                parts = [
                    swept.merge(*part) for part in zip(*(np.array_split(e, pieces) for e in (low, high)), strict=True)
                ]
                found = Ragged.joined(parts)
                assert found.counts.tolist() == expected.counts.tolist(), partial
                assert found.cells.tobytes() == expected.cells.tobytes(), partial
                assert (found.counts <= swept.sizes(low, high)).all()


def bits(column: FeatureColumn) -> object:
    """The bytes of its values; lists lie elsewhere."""
    return column.values.tolist() if column.values.dtype == object else column.values.tobytes()


def test_a_float_sum_forgets_what_has_left_its_window() -> None:
    """The bound is of the values in the window: 1e15 an hour ago must not round away today's cents."""
    chance = random.Random(3)
    sizes = [1e15] * 500 + [1e-3] * 500
    values = [chance.uniform(-size, size) for size in sizes]
    ats = [MIDNIGHT_US + i * 10**7 for i in range(len(values))]
    batch = as_events([Event("ann", at, "a", NOTHING | {"real": value}) for at, value in zip(ats, values, strict=True)])
    at_us = np.array(ats[600:], np.int64) + 1
    names = ["Sum_real_30s", "Sum_real_lifetime"]
    short, long = sweep.answer_sweep(LAYOUT, batch, np.zeros(len(at_us), np.int64), at_us, names)
    for row, last in enumerate(range(600, len(values))):
        edge = (int(at_us[row]) - 30 * 10**6) // 10**6 * 10**6
        inside = [value for at, value in zip(ats[: last + 1], values[: last + 1], strict=True) if at >= edge]
        for column, window in ((short, inside), (long, values[: last + 1])):
            assert abs(column.values[row] - math.fsum(window)) <= 1e-12 * math.fsum(map(abs, window))


def test_nothing_asked_and_nothing_there() -> None:
    batch, _code, at_us = many(1, 20)
    none = np.empty(0, np.int64)
    assert all(len(column) == 0 for column in sweep.answer_sweep(LAYOUT, batch, none, none))
    same_bits(
        sweep.answer_sweep(LAYOUT, as_events([]), np.full(3, -1), at_us[:3]),
        ranges.answer_ranges(LAYOUT, as_events([]), np.full(3, -1), at_us[:3]),
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_bare_columns_have_the_same_values_and_nothing_else(threads: int) -> None:
    batch, code, at_us = many(7, 300)
    at_us[:40] += 400 * DAY_US  # expired, and beyond every window
    whole = sweep.answer_sweep(LAYOUT, batch, code, at_us, threads=threads)
    bare = sweep.answer_sweep(LAYOUT, batch, code, at_us, threads=threads, bare=True)
    assert {status for column in whole for status in column.status.tolist()} >= {0, 2, 3}
    for one, other in zip(bare, whole, strict=True):
        assert one.to_arrow().equals(other.to_arrow()), one.feature.name
        assert is_unused(one.status)
        assert is_unused(one.event_us)
        assert is_unused(one.valid) == (one.feature.default is not None)
        chosen = np.array([5, 2, 2])
        assert one.take(chosen).to_arrow().equals(other.take(chosen).to_arrow())


def test_aggregations_may_share_a_name_and_windows_may_be_equal() -> None:
    view = WindowedView(
        "odd",
        version=1,
        entity=VIEW.entity,
        source=VIEW.source,
        features=[
            Sum("a", of="whole", windows=["1h"], default=0),
            Max("a", of="whole", windows=["24h", "1d"], default=0),
            Count("a", windows=["30s", "7d"], default=0),
            Count("n", windows=["60m", "1h", "3600s", "24h", "1440m"], default=0),
            Last("l", of="whole", windows=["24h", "1d", "1h"], default=0),
            FirstK("k", of="whole", k=2, windows=["24h", "1d"], default=[]),
        ],
    )
    batch, code, at_us = many(11, 400)
    layout = Layout.of(view)
    swept = sweep.answer_sweep(layout, batch, code, at_us, threads=2)
    assert [one.feature.name for one in swept] == list(view.outputs())
    for one, other in zip(swept, ranges.answer_ranges(layout, batch, code, at_us), strict=True):
        assert one.to_arrow().equals(other.to_arrow()), one.feature.name
        assert one.status.tolist() == other.status.tolist(), one.feature.name
        assert (one.status == Status.PRESENT).any(), one.feature.name


def test_many_events_are_swept_and_few_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, code, at_us = many(5, 200)
    called: list[str] = []
    for module, name in ((sweep, "answer_sweep"), (ranges, "answer_ranges")):
        monkeypatch.setattr(module, name, lambda *_, name=name, **__: called.append(name))
    ranges.answer_events(LAYOUT, batch, code, at_us)
    monkeypatch.setattr(ranges, "SWEPT_EVENTS", 200)
    ranges.answer_events(LAYOUT, batch, code, at_us)
    monkeypatch.setattr(ranges, "can_compile", lambda: False)
    ranges.answer_events(LAYOUT, batch, code, at_us)
    assert called == ["answer_ranges", "answer_sweep", "answer_ranges"]


def same_bits(found: list[FeatureColumn], expected: list[FeatureColumn], *, rounded: bool = True) -> None:
    """Equal, but for the rounding of float sums, which `check` bounds: of floats of any size, these alone say by how
    much, so such are not `rounded` here.
    """
    for one, other in zip(found, expected, strict=True):
        assert one.valid.tolist() == other.valid.tolist(), one.feature.name
        assert one.status.tolist() == other.status.tolist(), one.feature.name
        assert one.event_us.tolist() == other.event_us.tolist(), one.feature.name
        kind, column = one.feature.name.split("_")[:2]
        is_float = isinstance(one.feature.type, Float64Type) and "real" in one.feature.name
        if is_float and not rounded:
            continue
        if kind.startswith("Decayed"):
            atol = 1e-7 if kind == "DecayedCount" else LARGE[column] * 1e-7
            np.testing.assert_allclose(one.values, other.values, rtol=1e-9, atol=atol, err_msg=one.feature.name)
        elif is_float:
            atol = SLACK.get(one.feature.name.split("_")[0], 0.0)
            np.testing.assert_allclose(one.values, other.values, rtol=1e-9, atol=atol, err_msg=one.feature.name)
        else:
            assert (one.values == other.values).all(), one.feature.name
