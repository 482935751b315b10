"""On-demand features: computed alike online, in training sets and beyond memory, each row as if it were alone.

read ─┐
request ─┴→ f(rows)   =   f(row), row by row   =   by hand, row by row
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal as Exact
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from forebay import Feature, FeatureService, FeatureStore, Float64, String, on_demand
from forebay.errors import ConfigError, RequestError
from forebay.instants import MINUTE_US, moment
from forebay.language.definitions import Definitions
from forebay.language.manifest import to_manifest
from forebay.online.keys import Keys
from forebay.settings import Settings
from tests.client import on_demand_views
from tests.client.deployed_world import profile
from tests.client.on_demand_views import (
    DEFINITIONS,
    NOON_US,
    REQUEST,
    Array,
    Computed,
    of_age,
    spine_of,
)
from tests.laws.world import MIDNIGHT_US, VIEW


def test_what_is_computed_names_the_newest_event_behind_it(computed: Computed) -> None:
    online = computed.store.get_online_features(
        ["fails_at_odd@1:f"],
        entity_rows={"user": ["ann", "bob", "nobody"]},
        request={"number": [2, 2, 2]},
        at=moment(NOON_US),
    )
    newest = [moment(MIDNIGHT_US + 710 * MINUTE_US), moment(MIDNIGHT_US + 705 * MINUTE_US), None]
    assert online.event_timestamps["f"] == newest
    assert online.statuses["f"] == ["PRESENT"] * 3


@pytest.mark.parametrize(
    ("rows", "request_"),
    [
        ([{"user": "ann", "number": 4}, {"user": "bob", "number": 4}], None),
        ([{"user": "ann"}, {"user": "bob"}], {"number": 4}),
        ([{"user": "ann"}, {"user": "bob"}], {"number": np.array([4, 4])}),
        ({"user": ["ann", "bob"], "number": [4, 4.0]}, {}),
        (pd.DataFrame({"user": ["ann", "bob"], "number": pd.array([4, 4], "Int64")}), None),
        (pd.DataFrame({"user": ["ann", "bob"]}), {"number": pd.Series([4, 4])}),
        (pa.table({"user": ["ann", "bob"], "number": [4, 4]}), None),
    ],
)
def test_a_request_comes_in_the_rows_or_beside_them(computed: Computed, rows: Any, request_: Any) -> None:
    online = computed.store.get_online_features(["fails_at_odd@1:f"], entity_rows=rows, request=request_)
    assert online.to_dict() == {"user": ["ann", "bob"], "f": [8, 8]}


NEEDED = "which an on-demand feature needs of the request"


@pytest.mark.parametrize(
    ("rows", "request_", "sentence"),
    [
        (
            [{"user": "ann", "number": 1}, {"user": "ann", "numbr": 1}],
            None,
            f"entity_rows[1] has no 'number' (Int64), {NEEDED}; add it to each row, or pass request={{'number': …}}.",
        ),
        (
            {"user": ["ann"]},
            None,
            f"entity_rows has no column 'number' (Int64), {NEEDED}. ",
        ),
        ([{"user": "ann", "number": 1.5}], None, "entity_rows: 'number' of row 0 is '1.5' (double), which is no Int64"),
        ([{"user": "ann", "number": "4"}], None, "entity_rows: 'number' of row 0 is '4' (string), which is no Int64"),
        ([{"user": "a", "number": 1}, {"user": "b", "number": "x"}], None, "entity_rows: 'number' is no column: "),
        ([{"user": "ann"}], {"number": [1, 2]}, "request['number'] has 2 values for 1 rows; expected one for each, or"),
        (
            [{"user": "ann"}],
            {"amount": 1},
            "request has 'amount', which none of these features needs. Known: 'number'.",
        ),
        ([{"user": "ann"}], 7, "request=7 is not a dictionary; expected e.g. request={'amount': 12.5}"),
        ([{"user": "ann", "number": 1}], {"number": 1}, "'number' is in entity_rows and in request; leave one out"),
        ({"user": ["ann"], "number": [1]}, {"number": 1}, "'number' is in entity_rows and in request; leave one out"),
    ],
)
def test_a_request_that_cannot_be_read_says_what_is_wrong(
    computed: Computed, rows: Any, request_: Any, sentence: str
) -> None:
    with pytest.raises(RequestError) as error:
        computed.store.get_online_features(["fails_at_odd@1:f"], entity_rows=rows, request=request_)
    assert str(error.value).startswith(sentence)


AWARE = datetime(2020, 1, 1, tzinfo=UTC)
NAIVE = AWARE.replace(tzinfo=None)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("since", [AWARE, NAIVE], "has no time zone in row 1"),
        ("since", [None, AWARE, NAIVE], "has no time zone in row 2"),
        ("number", [2**70], None),
        ("number", [np.uint64(2**63 + 5), 1], None),
        ("number", [2.0**53, 1.0], "a float cannot tell such whole numbers apart"),
        ("price", [Exact("Infinity")], None),
        ("share", [np.datetime64("2020-01-01")], None),
        ("said", [b"\xff"], None),
    ],
)
def test_a_value_that_cannot_be_held_is_refused_in_every_way(
    computed: Computed, name: str, values: list[Any], words: str | None
) -> None:
    row = {"user": "ann", "number": 1, "share": 1.0, "price": 1, "agreed": True, "said": "a", "since": AWARE}
    rows = [{**row, name: value} for value in values]
    columns = {one: [given[one] for given in rows] for one in row}
    frame = pd.DataFrame({one: pd.Series(column, dtype=object) for one, column in columns.items()})
    beside = {one: column for one, column in columns.items() if one != "user"}
    names = ["mixed@1:hour"]
    for given in (rows, columns, frame):
        with pytest.raises(RequestError, match=words):
            computed.store.get_online_features(names, entity_rows=given)
    with pytest.raises(RequestError, match=words):
        computed.store.get_online_features(names, entity_rows=[{"user": "ann"}] * len(rows), request=beside)
    instants = [moment(NOON_US)] * len(rows)
    for spine in ({**columns, "event_timestamp": instants}, frame.assign(event_timestamp=instants)):
        with pytest.raises(RequestError, match=words):
            computed.store.get_historical_features(spine, features=names)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (
            pa.array([2**62], pa.timestamp("s")),
            "is 'a value beyond what can be shown' (timestamp[s]), which is no Int64",
        ),
        (pd.DataFrame({"number": [1]}), "request=   number\n0       1 is not a dictionary"),
        ({"number": {"b": 1, "a": 2}}, "request['number'] is a dict; expected one value for all rows, or a list"),
        ({"number": {1, 2}}, "request['number'] is a set; expected one value for all rows, or a list"),
    ],
)
def test_a_request_of_another_shape_is_refused(computed: Computed, number: Any, words: str) -> None:
    request = {"number": number} if isinstance(number, pa.Array) else number
    with pytest.raises(RequestError) as error:
        computed.store.get_online_features(["fails_at_odd@1:f"], entity_rows=[{"user": "ann"}], request=request)
    assert words in str(error.value)


def test_one_value_may_be_an_array_without_a_dimension(computed: Computed) -> None:
    online = computed.store.get_online_features(
        ["fails_at_odd@1:f"], entity_rows=[{"user": "ann"}] * 2, request={"number": np.array(4)}
    )
    assert online.to_dict()["f"] == [8, 8]


def test_features_without_a_request_refuse_one(computed: Computed) -> None:
    with pytest.raises(RequestError, match="request has 'number', which none of these features needs"):
        computed.store.get_online_features(
            ["everything@1:Count_all_1h"], entity_rows=[{"user": "ann"}], request={"number": 1}
        )


@pytest.mark.parametrize(
    ("spine", "sentence"),
    [
        ({"user": ["ann"]}, f"entity_df has no column 'number' (Int64), {NEEDED}. "),
        ({"user": ["ann"], "number": [float("inf")]}, "entity_df: 'number' is double and holds inf: a float"),
        ({"user": ["ann"], "number": [1], "f": [1]}, "entity_df has a column 'f', as the feature of 'fails_at_odd@1'"),
    ],
)
def test_a_spine_without_its_request_columns_is_refused(computed: Computed, spine: Any, sentence: str) -> None:
    rows = {**spine, "event_timestamp": [moment(NOON_US)]}
    with pytest.raises(RequestError) as error:
        computed.store.get_historical_features(rows, features=["fails_at_odd@1:f"])
    assert str(error.value).startswith(sentence)
    with pytest.raises(RequestError):
        computed.store.write_historical_features(rows, features=["fails_at_odd@1:f"], out="never.parquet")


@pytest.mark.parametrize("suffix", ["csv", "ndjson"])
def test_a_file_of_text_holds_request_columns_as_they_are_declared(
    computed: Computed, tmp_path: Path, suffix: str
) -> None:
    row = {"user": "ann", "number": 4, "share": 0.5, "price": 12.5, "agreed": True, "said": "007"}
    row |= {"since": "2030-01-01T00:00:00Z", "event_timestamp": "2013-12-15T12:00:00Z"}
    file = tmp_path / f"spine.{suffix}"
    frame = pd.DataFrame([row])
    frame.to_csv(file, index=False) if suffix == "csv" else frame.to_json(file, orient="records", lines=True)
    table = computed.store.get_historical_features(file, features=["mixed@1:sentence", "mixed@1:later"]).to_arrow()
    assert table["sentence"].to_pylist() == ["none 007 nowhere"]
    assert table["later"].to_pylist() == [datetime(2030, 1, 1, tzinfo=UTC)]
    assert table["said"].to_pylist() == ["007"]


def test_no_rows_are_no_values(computed: Computed) -> None:
    online = computed.store.get_online_features(["fails_at_odd@1:f"], entity_rows=[])
    assert online.to_dict() == {"user": [], "f": []}
    spine = spine_of([{"user": "ann", "number": 2}], NOON_US).slice(0, 0)
    training = computed.store.get_historical_features(spine, features=["fails_at_odd@1:f"]).to_arrow()
    assert (len(training), training["f"].type) == (0, pa.int64())


def test_keys_and_request_columns_are_told(computed: Computed) -> None:
    assert computed.store.keys_of("computed@1") == {"user": String}
    assert computed.store.request_of("computed@1") == REQUEST
    assert computed.store.request_of(["of_age@1:aged"]) == {}


def test_history_of_an_on_demand_view_is_refused(computed: Computed) -> None:
    sentence = "'mixed@1' is an on-demand view: nothing of it is stored, it is computed at the call, of everything@1, "
    with pytest.raises(RequestError) as error:
        computed.store.feature_history("mixed@1", {"user": "ann"})
    assert str(error.value).startswith(sentence)
    with pytest.raises(RequestError, match="is an on-demand view"):
        computed.store.compare("everything@1", "mixed@1")


def test_an_on_demand_view_is_no_service(computed: Computed) -> None:
    with pytest.raises(
        RequestError, match=r"'of_age@1' is a view, not a service; list its features, e.g. \['of_age@1:"
    ):
        computed.store.get_online_features("of_age@1", entity_rows=[{"user": "ann"}])


def test_full_names_name_the_on_demand_view(computed: Computed) -> None:
    online = computed.store.get_online_features(
        ["of_age@1:aged", "profile@1:age"], entity_rows=[{"user": "ann"}], full_feature_names=True
    )
    assert [*online.features] == ["of_age__aged", "profile__age"]


@on_demand(version=1, request={"x": Float64}, features=[Feature("doubled", Float64, default=0.0)])
def doubled(x: Array) -> Any:
    """Of the request alone."""
    return x * 2


def test_a_view_of_the_request_alone_comes_with_others(computed: Computed) -> None:
    service = FeatureService("mixture", version=1, features=[doubled, VIEW["Count_all_1h"]])
    with FeatureStore(computed.settings, Definitions.of(service)) as store:
        online = store.get_online_features("mixture@1", entity_rows=[{"user": "ann"}], request={"x": 4}, at=NOON_US)
        assert online.to_dict() == {"user": ["ann"], "doubled": [8.0], "Count_all_1h": [2]}
        assert online.event_timestamps["doubled"] == [None]
        sentence = "doubled@1 need nothing but the request, and no feature of an entity is asked for with them; ask for"
        with pytest.raises(RequestError, match=sentence):
            store.get_online_features(["doubled@1:doubled"], entity_rows=[{"x": 1.0}])


def test_what_clashes_within_one_request_is_refused(computed: Computed) -> None:
    @on_demand(version=1, request={"x": String}, features=[Feature("said", String, default="")])
    def other(x: Array) -> Any:
        return x

    @on_demand(version=1, request={"user": String}, features=[Feature("named", String, default="")])
    def key(user: Array) -> Any:
        return user

    @on_demand(version=1, request={"doubled": Float64}, features=[Feature("g", Float64, default=0.0)])
    def titled(doubled: Array) -> Any:
        return doubled

    count = VIEW["Count_all_1h"]
    cases = {
        "Request column 'x' is String for 'other@1' and Float64 for 'doubled@1'; ask for them apart": [other, doubled],
        "Request column 'user' is also a key of an entity in this request; ask for them apart": [key],
        "Feature 'doubled' of 'doubled@1' is also a column of the request; pass full_feature_names=True": [
            doubled,
            titled,
        ],
    }
    for sentence, views in cases.items():
        service = FeatureService("clash", version=1, features=[count, *views])
        with FeatureStore(computed.settings, Definitions.of(service)) as store, pytest.raises(RequestError) as error:
            store.get_online_features("clash@1", entity_rows=[{"user": "ann"}])
        assert str(error.value).startswith(sentence)


@pytest.fixture
def deployed(computed: Computed) -> Settings:
    """A manifest of the world: a client that knows no function yet."""
    computed.redis.set(Keys(computed.settings.namespace).manifest(), to_manifest(DEFINITIONS))
    return computed.settings


def connected(settings: Settings, definitions: str) -> FeatureStore:
    return FeatureStore(
        Settings(settings.home, settings.online_url, settings.offline_url, definitions, settings.namespace)
    )


def test_a_deployed_function_comes_from_the_code(deployed: Settings) -> None:
    with connected(deployed, "tests.client.on_demand_views") as store:
        online = store.get_online_features(["fails_at_odd@1:f"], entity_rows=[{"user": "ann", "number": 4}])
        assert online.to_dict()["f"] == [8]
        plain = store.get_online_features(
            ["everything@1:Count_all_lifetime"], entity_rows=[{"user": "ann"}], at=NOON_US
        )
        assert plain.to_dict()["Count_all_lifetime"] == [2]


def test_a_client_without_the_code_answers_what_is_stored_and_says_what_is_missing(deployed: Settings) -> None:
    with connected(deployed, "no_such_module") as store:
        plain = store.get_online_features(
            ["everything@1:Count_all_lifetime"], entity_rows=[{"user": "ann"}], at=NOON_US
        )
        assert plain.to_dict()["Count_all_lifetime"] == [2]
        with pytest.raises(ConfigError) as error:
            store.get_online_features(["of_age@1:aged"], entity_rows=[{"user": "ann"}])
    assert str(error.value).startswith(
        "The function of on-demand view 'of_age@1' is needed, and its code is not here: "
    )
    with connected(deployed, "tests.laws.world") as store, pytest.raises(ConfigError) as error:
        store.get_online_features(["of_age@1:aged"], entity_rows=[{"user": "ann"}])
    assert "module 'tests.laws.world' does not hold it; set FOREBAY_DEFINITIONS to" in str(error.value)


def test_code_that_is_not_what_was_deployed_is_refused(deployed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    declare = on_demand(version=1, inputs=[profile["age"], VIEW["Count_all_1h"]], features=of_age.features)

    def of_age_2(age: Array, Count_all_1h: Array) -> dict[str, Array]:
        return {"aged": np.sqrt(age) + 1, "share_of_age": Count_all_1h / age}

    of_age_2.__name__ = "of_age"
    monkeypatch.setattr(on_demand_views, "of_age", declare(of_age_2))
    monkeypatch.delattr(on_demand_views, "service")
    with connected(deployed, "tests.client.on_demand_views") as store, pytest.raises(ConfigError) as error:
        store.get_online_features(["of_age@1:aged"], entity_rows=[{"user": "ann"}])
    assert "holds another one than is deployed; install the definitions that were applied" in str(error.value)
