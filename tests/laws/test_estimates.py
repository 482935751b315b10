"""What is estimated is within its stated error: distinct counts beside DataSketches, quantiles beside sorted values."""

from __future__ import annotations

import math

import datasketches
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forebay.algebra.bins import RELATIVE_ERROR, bins_of, middles_of
from forebay.algebra.hashes import hashes_of
from forebay.algebra.lifted import Lifted
from forebay.algebra.partials import Partial
from forebay.algebra.ragged import SATURATED, Ragged
from forebay.language.aggregations import CountDistinct, Merged, Quantile, TopK
from forebay.language.types import Float64, Int64

STANDARD_ERRORS = 3


def merged_of(partials: tuple[Partial, ...], values: np.ndarray) -> Merged:
    """One window of many values, merged from tiles of up to a hundred events."""
    count, one = len(values), np.ones(1, np.int64)
    column = Lifted(values, np.ones(count, np.bool_), np.arange(count), np.zeros(count, "S1"))
    cells = {}
    for partial in partials:
        if partial.is_ragged:
            tiles = partial.merge_cells(partial.lift_cells(column), np.arange(0, count, 100))
            cells[partial.name] = partial.merge_cells(tiles, np.zeros(1, np.intp))
    return Merged({"present_c": count * one}, count * one, one, one, cells)


def distinct(count: int, k: int, seed: int) -> int:
    """The estimate of so many distinct values, each of which comes twice."""
    values = np.arange(count, dtype=np.int64) + seed * 10**9
    aggregation = CountDistinct("n", of="c", k=k, windows=["1h"], default=0)
    merged = merged_of(aggregation.partials(Int64), np.concatenate([values, values[::-1]]))
    return int(aggregation.finish(merged, Int64).values[0])


@pytest.mark.parametrize("count", [1, 15, 16, 1023, 1024])
def test_distinct_counts_are_exact_up_to_k(count: int) -> None:
    assert distinct(count, max(count, 16), 1) == count


@pytest.mark.parametrize(("count", "lg_k"), [(1_100, 10), (5_000, 10), (40_000, 10), (40_000, 6)])
def test_distinct_counts_are_within_the_bounds_of_datasketches(count: int, lg_k: int) -> None:
    """Its theta sketch, trimmed to k entries as ours, says how far three standard errors are."""
    sketch = datasketches.update_theta_sketch(lg_k)
    for i in range(count):
        sketch.update(i)
    sketch.trim()
    estimate = sketch.get_estimate()
    above = sketch.get_upper_bound(STANDARD_ERRORS) / estimate - 1
    below = 1 - sketch.get_lower_bound(STANDARD_ERRORS) / estimate
    errors = [distinct(count, 2**lg_k, seed) / count - 1 for seed in range(30)]
    assert -below <= min(errors) <= max(errors) <= above
    assert math.sqrt(sum(error**2 for error in errors) / len(errors)) <= 1.4 / math.sqrt(2**lg_k - 1)
    assert abs(sum(errors) / len(errors)) <= STANDARD_ERRORS / math.sqrt((2**lg_k - 1) * len(errors))


def test_hashes_of_small_numbers_and_of_texts_are_spread() -> None:
    for values in (np.arange(200_000), np.array([f"user-{i}" for i in range(200_000)], "S12"), np.arange(200_000) / 8):
        hashes = hashes_of(values)
        assert len(np.unique(hashes)) == len(values)
        for shift in (0, 32, 58):
            counts = np.bincount(((hashes >> np.uint64(shift)) & np.uint64(63)).astype(np.int64), minlength=64)
            assert ((counts - 3125) ** 2 / 3125).sum() < 120  # chi-squared of 63 degrees of freedom, p < 1e-4


@given(
    st.lists(st.floats(-1e18, 1e18) | st.floats(-1, 1) | st.integers(-200, 200).map(float), min_size=1, max_size=60),
    st.sampled_from([0, 0.01, 0.25, 0.5, 0.9, 0.999999, 1]),
)
@example([2.0**64 * (1 - 2**-53)], 1)
def test_quantiles_are_within_their_relative_error(values: list[float], q: float) -> None:
    aggregation = Quantile("q", of="c", q=q, windows=["1h"], default=None)
    found = aggregation.finish(merged_of(aggregation.partials(Float64), np.array(values)), Float64)
    exact = sorted(values)[round(q * 10**6) * (len(values) - 1) // 10**6]
    assert not found.failed.any()
    assert abs(found.values[0] - exact) <= max(abs(exact) * RELATIVE_ERROR, 2.0**-40)


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-130, 130), min_size=1, max_size=40))
def test_quantiles_of_whole_numbers(values: list[int]) -> None:
    aggregation = Quantile("q", of="c", windows=["1h"], default=None)
    found = aggregation.finish(merged_of(aggregation.partials(Int64), np.array(values, np.int64)), Int64)
    exact = sorted(values)[(len(values) - 1) // 2]
    assert abs(found.values[0] - exact) <= (0 if abs(exact) < 128 else abs(exact) * RELATIVE_ERROR)


def test_a_quantile_beyond_the_bins_is_an_error_and_others_stay() -> None:
    values = np.array([1.0, 2.0, 2.0**64, 1e300])
    for q, failed in ((0.0, False), (0.3, False), (0.7, True), (1.0, True)):
        aggregation = Quantile("q", of="c", q=q, windows=["1h"], default=None)
        merged = merged_of(aggregation.partials(Float64), values)
        assert aggregation.finish(merged, Float64).failed.tolist() == [failed]


def test_bins_ascend_with_the_numbers_in_them() -> None:
    numbers = np.concatenate([-np.geomspace(1e-13, 1e19, 5000)[::-1], np.geomspace(1e-13, 1e19, 5000)])
    bins = bins_of(numbers)
    assert (np.diff(bins) >= 0).all()
    assert (np.diff(middles_of(np.unique(bins), whole=False)) > 0).all()


def test_a_saturated_count_of_values_stays_so_whatever_is_merged() -> None:
    partial = TopK("t", of="c", k=1, cap=3, windows=["1h"], default=[]).partials(Int64)[1]
    values = np.array([0, 1, 2, 3, 0, 0], np.int64)
    column = Lifted(values, np.ones(6, np.bool_), np.arange(6), np.zeros(6, "S1"))
    lifted = partial.lift_cells(column)
    whole = partial.merge_cells(lifted, np.array([0]))
    assert whole.cells.tolist() == [(0, SATURATED)]
    for rows in ([0], [0, 1, 2, 3]):
        more = Ragged.joined([whole, lifted.take(np.array(rows))])
        for order in (np.arange(len(more)), np.arange(len(more))[::-1]):
            assert partial.merge_cells(more.take(order), np.array([0])).cells.tolist() == [(0, SATURATED)]
