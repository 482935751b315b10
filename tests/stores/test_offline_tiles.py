"""Tiles on a folder and on S3: what is read is what was folded, and dates are replaced as a whole."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay import (
    Bool,
    Count,
    Decimal,
    Entity,
    EventSource,
    First,
    Float64,
    Int64,
    Last,
    Max,
    Mean,
    Min,
    StdDev,
    String,
    Sum,
    Timestamp,
    Variance,
    WindowedView,
)
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, fold, merge, roll_up
from forebay.errors import FencedError, RequestError
from forebay.ingest.json import decode_json
from forebay.ingest.select import Selector
from forebay.instants import DAY_US, HOUR_US, day_us
from forebay.language.source import content_hash
from forebay.offline.tables import OfflineStore
from forebay.offline.tiles_columns import from_table, tiles_schema, to_table
from forebay.offline.tiles_table import StreamedTiles

START_US = day_us("2024-01-01")
COLUMNS = {"n": Int64, "x": Float64, "cents": Decimal(2), "word": String(max_bytes=5), "flag": Bool, "at": Timestamp}
SOURCE = EventSource(
    "s", schema={"u": String, "k": Int64, "ts": Timestamp, **COLUMNS},
    timestamp="ts", event_id=content_hash,
)  # fmt: skip
ENTITY = Entity("pair", keys={"u": String, "k": Int64})
NUMBERS, ORDERED = ("n", "x", "cents"), ("n", "x", "cents", "at")
VIEW = WindowedView(
    "v",
    version=1,
    entity=ENTITY,
    source=SOURCE,
    features=[
        Count("events", windows=["1h", "1d", None], default=0),
        Count("words", of="word", windows=["1h"], default=0),
        *(kind(f"{kind.__name__.lower()}_{c}", of=c, windows=["1h", "7d"], default=None)
          for kind in (Sum, Mean, Variance, StdDev) for c in NUMBERS),
        *(kind(f"{kind.__name__.lower()}_{c}", of=c, windows=["1d"], default=None)
          for kind in (Min, Max) for c in ORDERED),
        *(kind(f"{kind.__name__.lower()}_{c}", of=c, windows=["1d"], default=None)
          for kind in (First, Last) for c in COLUMNS),
    ],
)  # fmt: skip
LAYOUT = Layout.of(VIEW)

events = st.fixed_dictionaries(
    {
        "u": st.sampled_from(["a", "b|c", "é %"]),
        "k": st.sampled_from([-1, 2**62]),
        "ts": st.integers(START_US, START_US + 3 * DAY_US),
        "n": st.none() | st.integers(-(2**47), 2**47),
        "x": st.none() | st.floats(-1e6, 1e6),
        "cents": st.none() | st.floats(-1e6, 1e6),
        "word": st.none() | st.sampled_from(["", "é", "abcde"]),
        "flag": st.none() | st.booleans(),
        "at": st.none() | st.integers(0, START_US),
    }
)


def folded(rows: list[dict[str, Any]]) -> tuple[list[str], Tiles]:
    lines = [json.dumps(row).encode() for row in rows]
    batch, dead = decode_json(SOURCE, "p", 0, lines, START_US + 10 * DAY_US)
    assert not dead
    selected = Selector(VIEW).select(batch.table)
    return selected.keys.to_pylist(), roll_up(LAYOUT, fold(LAYOUT, selected))


def by_key(keys: list[str], tiles: Tiles) -> list[tuple[str, bytes]]:
    """Tiles whatever the order of their entities."""
    return sorted(zip((keys[code] for code in tiles.code.tolist()), map(bytes, tiles.records), strict=True))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(events, max_size=30))
def test_tiles_survive_as_columns_bit_for_bit(rows: list[dict[str, Any]]) -> None:
    keys, tiles = folded(rows)
    table = to_table(LAYOUT, pa.array(keys, pa.string()), tiles)
    assert table.schema.equals(tiles_schema(LAYOUT))
    table.validate(full=True)
    assert by_key(*from_table(LAYOUT, table)) == by_key(keys, tiles)
    assert by_key(*from_table(LAYOUT, table.take(np.random.default_rng(0).permutation(len(table))))) == by_key(
        keys, tiles
    )


def _some(count: int, first: int = 0) -> tuple[list[str], Tiles]:
    rows = [
        {
            "u": f"u{i % 5}",
            "k": i % 2,
            "ts": START_US + i * HOUR_US // 3,
            "n": i,
            "x": i / 3,
            "cents": i / 7,
            "word": "w",
            "at": 7,
        }
        for i in range(first, first + count)
    ]
    return folded(rows)


def test_dates_are_replaced_and_the_table_knows_which_were_folded(offline_url: str) -> None:
    table = OfflineStore(offline_url).tiles(VIEW)
    assert table.folded() == {}
    assert len(table.read()[1]) == 0
    keys, tiles = _some(150)  # 50 hours
    days = {"2024-01-01": 72, "2024-01-02": 72, "2024-01-03": 6}
    table.overwrite(START_US, START_US + 3 * DAY_US, keys, tiles, days)

    assert by_key(*table.read()) == by_key(keys, tiles)
    assert OfflineStore(offline_url).tiles(VIEW).folded() == days
    for hop_us in LAYOUT.hops_us:
        mine = tiles.take(tiles.records["ring"] == LAYOUT.hops_us.index(hop_us))
        assert by_key(*table.read(hop_us)) == by_key(keys, mine)
    second = tiles.take(
        (tiles.records["start"] >= START_US + DAY_US) & (tiles.records["start"] < START_US + 2 * DAY_US)
    )
    assert by_key(*table.read(None, START_US + DAY_US, START_US + 2 * DAY_US)) == by_key(keys, second)

    table.overwrite(START_US + DAY_US, START_US + 2 * DAY_US, [], Tiles.empty(LAYOUT), {"2024-01-02": 0})
    rest = tiles.take((tiles.records["start"] < START_US + DAY_US) | (tiles.records["start"] >= START_US + 2 * DAY_US))
    assert by_key(*table.read()) == by_key(keys, rest)
    assert table.folded()["2024-01-02"] == 0
    assert (table.size() or (0, 0))[0] == len(rest)


def test_tiles_outside_of_the_dates_are_refused(tmp_path: Any) -> None:
    table = OfflineStore(str(tmp_path)).tiles(VIEW)
    keys, tiles = _some(150)
    with pytest.raises(RequestError, match="no range of UTC dates"):
        table.overwrite(START_US + 1, START_US + DAY_US, keys, tiles, {})
    with pytest.raises(RequestError, match="outside"):
        table.overwrite(START_US, START_US + DAY_US, keys, tiles, {})
    assert len(table.read()[1]) == 0


def test_sums_are_plain_decimals_for_other_readers(tmp_path: Any) -> None:
    store = OfflineStore(str(tmp_path))
    keys, tiles = _some(60)
    store.tiles(VIEW).overwrite(START_US, START_US + DAY_US, keys, tiles, {})
    plain = DeltaTable(tmp_path / "tiles" / "v@1").to_pyarrow_table()
    assert str(plain.schema.field("total_cents").type) == "decimal128(38, 2)"
    assert str(plain.schema.field("squares_cents").type) == "decimal128(38, 4)"
    finest = plain.to_pylist()
    total = sum(row["total_cents"] for row in finest if row["hop_us"] == LAYOUT.hops_us[0])
    assert float(total) == pytest.approx(sum(round(i / 7, 2) for i in range(60)))


def test_streamed_tiles_are_appended_where_they_were_expected(offline_url: str) -> None:
    table = OfflineStore(offline_url).streamed(VIEW)
    keys, tiles = _some(30)
    first = tiles.take(tiles.records["ring"] == 0)
    table.append([StreamedTiles(pa.array(keys), first, 1, "p", 30)], {"0/p": (0, 30), "1/p": (0, 30)})
    assert table.positions() == {"0/p": 30, "1/p": 30}

    with pytest.raises(FencedError, match="is at 30 of '0/p', not at 0"):
        OfflineStore(offline_url).streamed(VIEW).append(
            [StreamedTiles(pa.array(keys), first, 1, "p", 30)], {"0/p": (0, 30)}
        )

    more_keys, more = _some(10, first=30)
    more = more.take(more.records["ring"] == 0)
    table.append([StreamedTiles(pa.array(more_keys), more, 2, "p", 40)], {"0/p": (30, 40)})
    table.append([], {"0/p": (40, 41)})
    assert OfflineStore(offline_url).streamed(VIEW).positions() == {"0/p": 41, "1/p": 30}

    together, all_tiles = table.read()
    codes = {key: code for code, key in enumerate(together)}
    parts = [(keys, first), (more_keys, more)]
    code = np.concatenate([[codes[k[c]] for c in t.code.tolist()] for k, t in parts])
    expected = merge(LAYOUT, code.astype(np.int64), np.concatenate([t.records for _, t in parts]))
    assert by_key(together, all_tiles) == by_key(together, expected)
