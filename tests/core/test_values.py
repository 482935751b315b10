"""Columns of features: what they begin as, and how they become Arrow arrays."""

from __future__ import annotations

import math
from decimal import Decimal as Exact

import numpy as np
import pytest

from forebay import Decimal, Feature, Float64, Int64
from forebay.core.values import FeatureColumn


@pytest.mark.parametrize("default", [Exact("-0.01"), Exact(0), Exact("7.25"), None])
def test_decimals_of_a_bare_column_lie_where_arrow_has_them(default: Exact | None) -> None:
    column = FeatureColumn.of_defaults(Feature("price", Decimal(2), default=default), 4, bare=True)
    given = FeatureColumn(column.feature, np.array([-5, 10**15]), np.array([True, True]), *[np.zeros(2, np.int64)] * 2)
    column.put(np.array([3, 1]), given)

    array = column.to_arrow()

    assert array.buffers()[1].address == column.values.__array_interface__["data"][0]
    assert array.to_pylist() == [default, Exact("10000000000000.00"), default, Exact("-0.05")]
    assert column.take(np.array([3, 3, 0])).to_arrow().to_pylist() == [Exact("-0.05"), Exact("-0.05"), default]


def test_a_default_is_kept_to_the_bit() -> None:
    zero, other = (FeatureColumn.of_defaults(Feature("x", Float64, default=of), 2) for of in (-0.0, 0.5))
    assert [math.copysign(1, value) for value in zero.values] == [-1, -1]
    assert other.to_python() == [0.5, 0.5]
    assert FeatureColumn.of_defaults(Feature("n", Int64, default=0), 2).to_python() == [0, 0]
