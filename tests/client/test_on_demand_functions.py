"""Functions of on-demand views: what they may return, and that a row's value depends on that row alone."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from decimal import Decimal as Exact
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forebay import (
    Feature,
    FeatureService,
    FeatureStore,
    Float64,
    Int64,
    List,
    OnDemandView,
    String,
    Timestamp,
    on_demand,
)
from forebay.errors import DefinitionError
from forebay.history import bucketed
from forebay.instants import moment
from forebay.language.definitions import Definitions
from forebay.language.manifest import from_manifest, to_manifest
from tests.client.on_demand_views import (
    NOON_US,
    Array,
    Computed,
    answers,
    fails_at_odd,
    of_age,
    spine_of,
)
from tests.laws.world import VIEW


def test_a_row_at_which_the_function_raises_gets_the_default_and_the_others_their_values(computed: Computed) -> None:
    rows = [{"user": "ann", "number": number} for number in (2, 3, 4, 5, 6, 8)]
    expected = [(4, "PRESENT"), (7, "DEFAULT_ERROR"), (8, "PRESENT"), (7, "DEFAULT_ERROR"), (12, "PRESENT")]
    with pytest.warns(RuntimeWarning, match=r"'fails_at_odd@1' raised ValueError: rows at which it"):
        online = computed.store.get_online_features(["fails_at_odd@1:f"], entity_rows=rows, at=moment(NOON_US))
    assert answers(online, ["f"])["f"] == [*expected, (16, "PRESENT")]
    with pytest.warns(RuntimeWarning):
        training = computed.store.get_historical_features(
            spine_of(rows, NOON_US), features=["fails_at_odd@1:f"], with_statuses=True
        ).to_arrow()
    assert [*zip(training["f"].to_pylist(), training["f__status"].to_pylist(), strict=True)][:5] == expected


def asked(view: OnDemandView, computed: Computed, rows: int = 5, **request: Any) -> Any:
    """Its features for some rows, of a store that has it alone."""
    store = FeatureStore(computed.settings, Definitions.of(FeatureService("alone", version=1, features=[view])))
    with store:
        people = [{"user": "ann", **{name: values[row] for name, values in request.items()}} for row in range(rows)]
        return store.get_online_features("alone@1", entity_rows=people, at=moment(NOON_US))


def declared(function: Any, kind: Any = Float64, default: Any = -1.0) -> OnDemandView:
    """A view of one feature."""
    declare = on_demand(
        version=1, inputs=[VIEW["Count_all_1h"]], request={"x": Float64}, features=[Feature("f", kind, default=default)]
    )
    return declare(function)


X = [1.0, 2.0, 4.0, 8.0, 16.0]


def test_a_function_that_looks_at_other_rows_is_refused(computed: Computed) -> None:
    def centred(Count_all_1h: Array, x: Array) -> Any:
        return x - x.mean()

    def first(Count_all_1h: Array, x: Array) -> Any:
        return np.full(len(x), x[0] if len(x) > 1 else np.nan)

    def many(Count_all_1h: Array, x: Array) -> Any:
        return x[1:].max() + 0 * x

    message = r"On-demand view 'centred@1': 'f' of row 0 is 0.0 by itself and -5.2 among 5 rows. A row's value may"
    with pytest.raises(DefinitionError, match=message):
        asked(declared(centred), computed, x=X)
    with pytest.raises(DefinitionError, match=r"'f' of row 0 is no value by itself and 1.0 among 5 rows"):
        asked(declared(first), computed, x=X)
    with pytest.raises(DefinitionError, match=r"'f' of row 0 is no value by itself and 16.0 among 5 rows"):
        asked(declared(many), computed, x=X)


def test_a_function_for_one_row_is_called_for_one_row_and_said_to_be_slow(computed: Computed) -> None:
    def branching(Count_all_1h: Array, x: Array) -> Any:
        return x if x > 3 else -x

    with pytest.warns(RuntimeWarning, match="raised ValueError for several rows at once and for none alone"):
        online = asked(declared(branching), computed, x=X)
    assert online.to_dict()["f"] == [-1.0, -2.0, 4.0, 8.0, 16.0]


@pytest.mark.filterwarnings("ignore:The function of on-demand view")
def test_a_function_that_raises_is_checked_too(computed: Computed) -> None:
    def raises_and_ranks(Count_all_1h: Array, x: Array) -> Any:
        if (x == 16).any():
            raise ValueError("sixteen")
        return x.argsort().argsort().astype(float)

    with pytest.raises(DefinitionError, match="A row's value may depend on that row alone"):
        asked(declared(raises_and_ranks), computed, x=[4.0, 2.0, 1.0, 8.0, 16.0])


def test_what_is_refused_names_the_callers_row(computed: Computed, tmp_path: Path, monkeypatch: Any) -> None:
    def centred(Count_all_1h: Array, x: Array) -> Any:
        return x - x.mean()

    with pytest.raises(DefinitionError, match=r"'f' of row 2 is 0\.0 by itself and -3\.0 among 2 rows"):
        asked(declared(centred), computed, 4, x=[None, None, 2.0, 8.0])
    monkeypatch.setattr(bucketed, "piece_rows", lambda *_: 3)
    service = FeatureService("alone", version=1, features=[declared(centred)])
    spine = {"user": ["ann"] * 6, "x": [None, None, None, None, 1.0, 5.0], "event_timestamp": [moment(NOON_US)] * 6}
    with (
        FeatureStore(computed.settings, Definitions.of(service)) as store,
        pytest.raises(DefinitionError, match=r"'f' of row 4 is 0\.0 by itself and -2\.0 among 2 rows"),
    ):
        store.write_historical_features(spine, features="alone@1", out=tmp_path / "never.parquet")


@pytest.mark.parametrize(
    ("kind", "result", "expected"),
    [
        (Float64, np.ma.masked_equal(X, 2.0), [1.0, -1.0, 4.0, 8.0, 16.0]),
        (Float64, np.ma.masked_equal(np.array(X, "f4"), 2.0), [1.0, -1.0, 4.0, 8.0, 16.0]),
        (Int64, np.ma.masked_equal(np.arange(5), 2), [0, 1, -1, 3, 4]),
        (Int64, np.arange(5).astype(">i8"), [0, 1, 2, 3, 4]),
        (Float64, np.arange(5).astype(np.longdouble), [0.0, 1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_what_a_mask_hides_is_no_value(computed: Computed, kind: Any, result: Any, expected: list[Any]) -> None:
    def masked(Count_all_1h: Array, x: Array) -> Any:
        return result[[X.index(one) for one in x]]

    online = asked(declared(masked, kind, -1), computed, x=X)
    assert online.to_dict()["f"] == expected
    assert online.statuses["f"] == ["DEFAULT_ERROR" if one == -1 else "PRESENT" for one in expected]


def test_what_a_function_keeps_is_not_what_it_returned(computed: Computed) -> None:
    kept = np.zeros(9)

    def doubles(Count_all_1h: Array, x: Array) -> Any:
        kept[: len(x)] = x * 2
        return kept[: len(x)]

    assert asked(declared(doubles), computed, x=X).to_dict()["f"] == [2.0, 4.0, 8.0, 16.0, 32.0]


def test_lists_are_the_functions_own_as_well(computed: Computed) -> None:
    @on_demand(version=1, inputs=[VIEW["LastK_whole_lifetime"]], features=[Feature("f", Int64, default=-1)])
    def pops(LastK_whole_lifetime: Array) -> Any:
        return [one.pop() for one in LastK_whole_lifetime]

    online = asked(pops, computed, 3)
    assert (online.to_dict()["f"], online.statuses["f"]) == ([4, 4, 4], ["PRESENT"] * 3)


def test_a_matrix_product_is_the_same_alone_or_refused(computed: Computed) -> None:
    """Its last bits depend on how many rows there are, on most machines."""
    weights = np.random.default_rng(2).random(64)

    def scored(Count_all_1h: Array, x: Array) -> Any:
        return np.stack([x * (k + 1) / 7.3 for k in range(64)], axis=1) @ weights

    def summed(Count_all_1h: Array, x: Array) -> Any:
        return (np.stack([x * (k + 1) / 7.3 for k in range(64)], axis=1) * weights).sum(axis=1)

    drawn = np.random.default_rng(3).random(16).tolist()
    for function in (scored, summed):
        alone = [asked(declared(function), computed, 1, x=[one]).to_dict()["f"][0] for one in drawn]
        try:
            together = asked(declared(function), computed, 16, x=drawn).to_dict()["f"]
        except DefinitionError:
            together = alone if function is scored else []
        assert together == alone


AWARE = datetime(2020, 1, 1, tzinfo=UTC)
NAIVE = AWARE.replace(tzinfo=None)


def test_an_instant_without_a_time_zone_is_none_whatever_stands_beside_it(computed: Computed) -> None:
    def instants(Count_all_1h: Array, x: Array) -> Any:
        return [NAIVE if one == 2 else AWARE for one in x]

    online = asked(declared(instants, Timestamp, None), computed, x=X)
    assert online.to_dict()["f"] == [AWARE, None, AWARE, AWARE, AWARE]
    assert online.statuses["f"][1] == "DEFAULT_ERROR"


@pytest.mark.filterwarnings("ignore:The function of on-demand view")
@pytest.mark.parametrize(
    ("kind", "result", "expected"),
    [
        (Timestamp, np.array(["2020-01-01", "NaT", "2020-01-01"], "datetime64[ns]"), [AWARE, None, AWARE]),
        (Timestamp, np.array([50, 586_948, 50], "datetime64[Y]"), [AWARE, None, AWARE]),
        (Timestamp, np.array(["2020-01-01"] * 3, "datetime64[D]"), [AWARE] * 3),
        (List(Timestamp), np.array([["2020-01-01"]] * 3, "datetime64[s]"), [[AWARE]] * 3),
        (Int64, np.array(["2020-01-01"] * 3, "datetime64[us]"), [None] * 3),
        (Float64, np.array([1, 2, 3], "timedelta64[s]"), [None] * 3),
        (Float64, np.array([True, False, True]), [None] * 3),
        (Float64, np.ones((3, 1)), [None] * 3),
        (Float64, [Exact("1.5"), 2.5, 3], [1.5, 2.5, 3.0]),
        (String, ["a", b"b", "c"], ["a", None, "c"]),
    ],
)
def test_a_value_is_judged_by_itself(computed: Computed, kind: Any, result: Any, expected: list[Any]) -> None:
    def judged(Count_all_1h: Array, x: Array) -> Any:
        rows = [X.index(one) for one in x]
        return result[rows] if isinstance(result, np.ndarray) else [result[row] for row in rows]

    online = asked(declared(judged, kind, None), computed, 3, x=X)
    assert online.to_dict()["f"] == expected
    assert online.statuses["f"] == ["PRESENT" if one is not None else "DEFAULT_ERROR" for one in expected]


def test_values_of_another_type_are_said(computed: Computed) -> None:
    def compares(Count_all_1h: Array, x: Array) -> Any:
        return x > 0

    said = r"'compares@1' returned for 'f' what is not of its type \(bool is no Float64: wrong type\): the default"
    with pytest.warns(RuntimeWarning, match=said):
        asked(declared(compares), computed, x=X)


def test_a_view_is_still_its_function() -> None:
    assert of_age(np.array([4.0]), np.array([2]))["share_of_age"].tolist() == [0.5]
    bare = Definitions.of(of_age).on_demand["of_age@1"]
    assert from_manifest(to_manifest(Definitions.of(of_age))).on_demand["of_age@1"].code == bare.code
    with pytest.raises(DefinitionError, match="'of_age@1' has no function here: it was read from a manifest"):
        from_manifest(to_manifest(Definitions.of(of_age))).on_demand["of_age@1"](1, 2)


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (lambda x: 1.0, "its function returned a float for 'f' of 1 rows; expected an array with a value for each row"),
        (lambda x: "abc", "its function returned a str for 'f' of 1 rows"),
        (lambda x: np.append(x, x), "its function returned a ndarray of 2 values for 'f' of 1 rows"),
        (lambda x: {"g": x}, "its function returned a dict of 'g'; expected an array of its values"),
        (lambda x: np.asarray(x.sum()), "its function returned a ndarray for 'f' of 1 rows"),
        (lambda x: None, "its function returned a NoneType for 'f' of 1 rows"),
    ],
)
def test_a_result_of_another_shape_is_refused(computed: Computed, result: Any, sentence: str) -> None:
    def shaped(Count_all_1h: Array, x: Array) -> Any:
        return result(x)

    with pytest.raises(DefinitionError) as error:
        asked(declared(shaped), computed, 1, x=X)
    assert str(error.value).startswith(f"On-demand view 'shaped@1': {sentence}")


def test_several_features_come_as_a_dict(computed: Computed) -> None:
    @on_demand(
        version=1,
        inputs=[VIEW["Count_all_1h"]],
        features=[Feature("one", Int64, default=0), Feature("two", Int64, default=0)],
    )
    def pair(Count_all_1h: Array) -> Any:
        return Count_all_1h

    with pytest.raises(DefinitionError, match="its function returned a ndarray; expected a dict of 'one', 'two'"):
        asked(pair, computed)


@pytest.mark.filterwarnings("ignore:The function of on-demand view")
@pytest.mark.parametrize(
    ("kind", "default", "result", "expected"),
    [
        (Float64, -1.0, [1, 2.5, float("nan"), float("inf"), None], [1.0, 2.5, -1.0, -1.0, -1.0]),
        (Int64, -1, np.array([1.0, 2.5, np.nan, np.inf, 2.0**60]), [1, -1, -1, -1, -1]),
        (Int64, -1, [1, "2", 3, None, 5], [1, -1, 3, -1, 5]),
        (String, "-", np.array(["a", "b", "", "d", "e"]), ["a", "b", "", "d", "e"]),
        (String, "-", ["a", None, "c", 4, "e"], ["a", "-", "c", "-", "e"]),
        (Float64, None, np.arange(5, dtype=np.float32), [0.0, 1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_a_value_of_another_type_is_the_default_with_its_status(
    computed: Computed, kind: Any, default: Any, result: Any, expected: list[Any]
) -> None:
    def typed(Count_all_1h: Array, x: Array) -> Any:
        return (
            result[[X.index(one) for one in x]] if isinstance(result, np.ndarray) else [result[X.index(o)] for o in x]
        )

    online = asked(declared(typed, kind, default), computed, x=X)
    assert online.to_dict()["f"] == expected
    assert online.statuses["f"] == ["DEFAULT_ERROR" if one in (default, None) else "PRESENT" for one in expected]


def test_a_function_may_write_to_its_arguments_and_the_inputs_stay_what_they_are(computed: Computed) -> None:
    def spoils(Count_all_1h: Array, x: Array) -> Any:
        Count_all_1h[:] = 0
        x[:] = -5.0
        return x

    view = declared(spoils)
    service = FeatureService("both", version=1, features=[view, VIEW["Count_all_1h"]])
    with FeatureStore(computed.settings, Definitions.of(service)) as store:
        online = store.get_online_features("both@1", entity_rows=[{"user": "ann", "x": 1.0}], at=moment(NOON_US))
    assert online.to_dict() == {"user": ["ann"], "f": [-5.0], "Count_all_1h": [2]}


def test_what_is_behind_is_said_of_what_is_computed() -> None:
    """STALE and UNAVAILABLE inputs make a STALE value; a default of any other kind does not."""
    from forebay.calls.on_demand import compute
    from forebay.core.values import FeatureColumn, Status

    feature, count = Feature("Count_all_1h", Int64, default=0), len(Status)
    statuses = np.arange(count, dtype=np.uint8)
    read = FeatureColumn(feature, np.arange(count), np.ones(count, bool), statuses, np.arange(count))
    number = FeatureColumn(
        Feature("number", Int64, default=None),
        np.full(count, 2),
        np.ones(count, bool),
        np.zeros(count, np.uint8),
        np.full(count, -(2**63)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = compute(fails_at_odd, {"Count_all_1h": read, "number": number}, np.zeros(count, np.int64))
    behind = {Status.STALE, Status.UNAVAILABLE}
    assert [Status(one) for one in found.status] == [Status.STALE if s in behind else Status.PRESENT for s in Status]
