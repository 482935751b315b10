"""A column gets another name: events that bring either are read alike, and so is what is archived, in every path.

declared      FIRST    kind                      archived under kind
              BOTH     kind, category            under both, whichever an event brings
              LAST     category                  under category
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from forebay import Count, CountDistinct, EventSource, Int64, Last, String, Timestamp, WindowedView
from forebay.backfill.tiles import fold_dates
from forebay.calls.keyed import Keyed
from forebay.deploy.plan import make_plan
from forebay.errors import DefinitionError
from forebay.history.historical import answers
from forebay.history.spark import Cut
from forebay.ingest.arrow import conform, mismatches
from forebay.ingest.batch import EventBatch
from forebay.ingest.json import decode_json
from forebay.ingest.rows import Messages, decode_rows
from forebay.language.definitions import Definitions
from forebay.language.fingerprint import fingerprint
from forebay.offline.replay import replay
from forebay.offline.tables import OfflineStore
from tests.backfill.shop import user
from tests.backfill.world import NOW, START, day

FIRST = EventSource(
    "shop",
    schema={"event_id": String(max_bytes=16), "user_id": String, "kind": String(max_bytes=8), "ts": Timestamp},
    timestamp="ts",
    event_id="event_id",
    history_start="2024-01-01",
)
BOTH = msgspec.structs.replace(
    FIRST, schema={**FIRST.schema, "category": String(max_bytes=8)}, renamed={"category": "kind"}
)
LAST = msgspec.structs.replace(
    BOTH, schema={name: kind for name, kind in BOTH.schema.items() if name != "kind"}, renamed={"category": "kind"}
)


def view_of(source: EventSource, column: str, version: int) -> WindowedView:
    features = [
        Last("last", of=column, windows=["30d"], default="none"),
        CountDistinct("kinds", of=column, windows=["30d"], default=0),
        Count("books", windows=["30d"], default=0),
    ]
    return WindowedView("shopping", version, user, source, features=features, where=f"{column} <> 'toy'")


LASTS = ["book", "book", "map", "game", "pen", "cup"]
OLD, NEW = view_of(BOTH, "kind", 1), view_of(BOTH, "category", 2)


def by_json(source: EventSource, partition: str, events: list[dict[str, Any]]) -> EventBatch:
    lines = [json.dumps(event).encode() for event in events]
    batch, dead = decode_json(source, partition, 0, lines, NOW)
    assert not dead
    return batch


def by_arrow(source: EventSource, partition: str, events: list[dict[str, Any]]) -> EventBatch:
    names = list(dict.fromkeys(name for one in events for name in one))
    table = pa.Table.from_pylist([dict.fromkeys(names) | one for one in events])
    assert mismatches(source, table.schema) == []
    batch, dead = conform(source, partition, 0, table, NOW)
    assert not dead
    return batch


def by_rows(source: EventSource, partition: str, events: list[dict[str, Any]]) -> EventBatch:
    batch, dead = decode_rows(Messages(source, partition, 0, [b"-"] * len(events)), events, NOW)
    assert not dead
    return batch


def event(number: int, **values: Any) -> dict[str, Any]:
    return {"event_id": f"e{number}", "user_id": "u1", "ts": f"2024-01-{number + 1:02}T01:00:00Z", **values}


def archive(store: OfflineStore) -> None:
    """Five days: archived before the new name was declared, by either name since, and when only the new one was."""
    before = by_json(FIRST, "a", [event(0, kind="book"), event(1, kind="toy")])
    since = by_json(BOTH, "b", [event(2, kind="map"), event(3, category="game")])
    after = by_json(LAST, "c", [event(4, category="pen"), event(5, kind="cup")])
    for source, batch in ((FIRST, before), (BOTH, since), (LAST, after)):
        store.archive(source).append([batch], NOW)


def asked(store: OfflineStore, view: WindowedView, at_us: int) -> list[Any]:
    columns = answers(
        store, view, Keyed(["u1"], np.zeros(1, np.int64)), np.array([at_us]), list(view.outputs()), known=False
    )
    return [column.to_python()[0] for column in columns]


@pytest.mark.parametrize("decode", [by_json, by_arrow, by_rows])
def test_an_event_may_bring_either_name_or_both(decode: Callable[..., EventBatch]) -> None:
    events = [event(0, kind="a"), event(1, category="b"), event(2, kind="c", category="d"), event(3, kind=None)]
    both = decode(BOTH, "p", events).table
    assert both["category"].to_pylist() == ["a", "b", "d", None]
    assert both["kind"].to_pylist() == ["a", "b", "c", None]
    assert decode(LAST, "p", events).table["category"].to_pylist() == ["a", "b", "d", None]


def test_a_wrong_value_under_the_former_name_is_a_dead_letter_that_shows_it() -> None:
    batch, dead = decode_json(LAST, "p", 0, [json.dumps(event(0, kind="far too long")).encode()], NOW)
    assert (len(batch), len(dead), "far too long" in dead[0].detail) == (0, 1, True)
    batch, dead = conform(LAST, "p", 0, pa.Table.from_pylist([event(0, kind="far too long")]), NOW)
    assert (len(batch), len(dead), "far too long" in dead[0].detail) == (0, 1, True)
    assert mismatches(LAST, pa.schema([("event_id", pa.string()), ("user_id", pa.string()), ("ts", pa.string())])) == [
        "'category' (String(max_bytes=8)) is missing"
    ]


def test_every_path_reads_both_names_as_one(offline_url: str) -> None:
    store = OfflineStore(offline_url)
    archive(store)
    last = view_of(LAST, "category", 3)
    for view in (NEW, last):
        assert [asked(store, view, day(at))[0] for at in (1, 2, 3, 4, 5, 6)] == [
            "book",
            "book",
            "map",
            "game",
            "pen",
            "cup",
        ]
        assert asked(store, view, day(6))[1:] == [5, 5], "all but the toy"
        fold_dates(store, view, day(0), day(6))
        tiles = store.tiles(view).read()[1]
        assert tiles.records["events"].tolist() == [1] * 5
    assert [asked(store, OLD, day(at))[0] for at in range(1, 7)] == LASTS
    kinds = ["book", "toy", "map", "game", "pen", "cup"]
    for source in (BOTH, LAST):
        replayed = replay(store.archive(source), dict.fromkeys("abc", (0, 2)))
        assert sorted(kind for _, rows in replayed for kind in rows["category"].to_pylist()) == sorted(kinds)
        table = store.archive(source).table
        groups = pa.concat_tables(table.reading(["category", "ts"]).row_groups())
        assert groups.sort_by("ts")["category"].to_pylist() == kinds
        alone = [group.read() for group in table.reading(["category", "ts"]).groups(2)]
        assert pa.concat_tables(alone).equals(groups)
        where = pc.field("ts") >= pa.scalar(START, groups["ts"].type)
        shards = store.archive(source).shards(["user_id"], 2, where, None, NOW, 9)
        found = [rows for number in range(2) for _, rows in shards.file(number).pieces(["category"])]
        assert sorted(pa.concat_tables(found)["category"].to_pylist()) == sorted(kinds)
        view, columns = view_of(source, "category", 9), ("user_id", "category")
        cut = Cut(store.location.url, table.path, view, columns, table.stored_schema(), where, 1, 0, table.names)
        rows = pa.concat_tables(cut.of_shard(0, table.files_of()))
        assert sorted(rows["category"].to_pylist()) == sorted(kinds)


def test_views_of_the_former_name_stay_what_they_were() -> None:
    before = view_of(FIRST, "kind", 1)
    assert fingerprint(before) == fingerprint(OLD)
    planned = make_plan(Definitions.of(OLD, NEW), Definitions.of(before))
    assert (planned.refused, [change.key for change in planned.added if change.kind == "view"]) == ((), ["shopping@2"])
    gone = make_plan(Definitions.of(view_of(LAST, "category", 2)), Definitions.of(OLD, NEW))
    assert gone.refused == ()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            view_of(msgspec.structs.replace(BOTH, renamed={}), "category", 2),
            NEW,
            "column 'category', whose former names change, is used by shopping@2",
        ),
        (NEW, view_of(msgspec.structs.replace(BOTH, renamed={}), "category", 2), "whose former names change"),
        (
            view_of(msgspec.structs.replace(FIRST, schema={**FIRST.schema, "kind": Int64}), "event_id", 1),
            view_of(LAST, "category", 2),
            "its archive holds 'kind' as Int64, and 'category' is String(max_bytes=8)",
        ),
        (
            view_of(msgspec.structs.replace(FIRST, schema={**FIRST.schema, "kind": String}), "event_id", 1),
            view_of(LAST, "category", 2),
            "its archive holds 'kind' as String",
        ),
    ],
)
def test_what_would_change_stored_values_is_refused(before: WindowedView, after: WindowedView, said: str) -> None:
    refused = make_plan(Definitions.of(after), Definitions.of(before)).refused
    assert said in " ".join(change.reason for change in refused)


@pytest.mark.parametrize(
    ("renamed", "said"),
    [
        ({"sort": "kind"}, "renamed 'sort' is no column"),
        ({"category": "kind", "kind": "category"}, "is renamed from itself"),
        ({"category": "sort", "kind": "sort"}, "'sort' is the former name of two columns"),
        ({"ts": "at"}, "'ts' cannot be renamed"),
        ({"category": "event_id"}, "'event_id' cannot be renamed"),
        ({"category": "a__b"}, "cannot be a name"),
    ],
)
def test_a_renaming_that_contradicts_itself_cannot_be_declared(renamed: dict[str, str], said: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(said)):
        msgspec.structs.replace(BOTH, renamed=renamed)


def test_keys_and_types_stay() -> None:
    with pytest.raises(DefinitionError, match="a renamed column keeps its type"):
        msgspec.structs.replace(BOTH, schema={**BOTH.schema, "category": Int64})
    with pytest.raises(DefinitionError, match="keys keep their name"):
        view_of(msgspec.structs.replace(BOTH, renamed={"user_id": "customer"}), "kind", 1)
