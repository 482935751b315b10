"""The columns of every offline table are pinned: what is stored today must be readable tomorrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forebay import (
    Bool,
    Count,
    Decimal,
    Entity,
    EventSource,
    Feature,
    Float64,
    Int64,
    Last,
    Max,
    StdDev,
    String,
    Timestamp,
    WindowedView,
    batch_view,
)
from forebay.language.source import content_hash
from forebay.offline.tables import OfflineStore

GOLDEN = Path(__file__).parent / "offline_v1.txt"
COLUMNS = {"word": String(max_bytes=4), "flag": Bool, "n": Int64, "x": Float64, "cents": Decimal(2), "at": Timestamp}
USER = Entity("user", keys={"user": String, "shop": Int64})
SOURCE = EventSource(
    "s", schema={"user": String, "shop": Int64, "ts": Timestamp, **COLUMNS}, timestamp="ts", event_id=content_hash
)
VIEW = WindowedView(
    "windowed",
    version=1,
    entity=USER,
    source=SOURCE,
    features=[
        Count("events", windows=["1h"], default=0),
        *(StdDev(f"stddev_{name}", of=name, windows=["1h"], default=None) for name in ("n", "x", "cents")),
        *(Max(f"max_{name}", of=name, windows=["1h"], default=None) for name in ("n", "x", "cents", "at")),
        *(Last(f"last_{name}", of=name, windows=["1h"], default=None) for name in COLUMNS),
    ],
)


@batch_view(
    entity=USER,
    version=1,
    sources=[SOURCE],
    features=[Feature(name, kind, default=None) for name, kind in COLUMNS.items()],
)
def computed(context: Any, s: Any) -> Any:
    return s


def test_the_columns_of_the_offline_tables_are_as_they_were(tmp_path: Path) -> None:
    store = OfflineStore(str(tmp_path))
    nouns = [store.archive(SOURCE), store.tiles(VIEW), store.streamed(VIEW), store.rows(computed)]
    tables = [noun.table for noun in (*nouns, store.dead_letters(), store.repairs())]
    tables += [store.rows(computed).superseded, store.history(VIEW).table, store.revived().table]
    lines = [
        line
        for table in tables
        for line in (table.path, *(f"    {field.name}: {field.type}" for field in table.schema))
    ]
    assert "\n".join(lines) + "\n" == GOLDEN.read_text()
