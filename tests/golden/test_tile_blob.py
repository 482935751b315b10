"""The bytes of tiles in the online store are pinned: a change here is a change of a format that outlives the process.

To change it on purpose: a new version beside `codec.CONDENSED`, described in docs/formats.md and named in the
changelog, and a new file from the test's `blobs`. Those of before stay, and stay readable.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from forebay import Count, Decimal, Entity, EventSource, Last, Mean, StdDev, String, Timestamp, WindowedView
from forebay.core import codec
from forebay.core.events import Column, Events
from forebay.core.layout import Layout
from forebay.core.tiles import fold, roll_up

GOLDEN = Path(__file__).parent

source = EventSource(
    "payments",
    schema={"id": String(max_bytes=8), "card": String, "amount": Decimal(2), "ts": Timestamp},
    timestamp="ts",
    event_id="id",
)
view = WindowedView(
    "card_payments",
    version=1,
    entity=Entity("card", keys={"card": String}),
    source=source,
    features=[
        Count("payments", windows=["1h", None], default=0),
        Mean("mean_amount", of="amount", windows=["24h"], default=0.0),
        StdDev("amount_std", of="amount", windows=["24h"], default=0.0),
        Last("last_amount", of="amount", windows=["24h"], default=0),
    ],
)
EVENTS = Events(
    keys=pa.array(["c1", "c2"]),
    code=np.array([0, 1, 0, 0], np.int64),
    ts=np.array([1_387_065_600_000_000, 1_387_065_600_000_001, 1_387_065_659_999_999, 1_387_152_000_000_000], np.int64),
    ids=np.array([b"a", b"b", b"c", b"d"], "S8"),
    offset=np.arange(4),
    columns={"amount": Column(np.array([1250, -1, 0, 140_737_488_355_327]), np.array([True, True, False, True]))},
)


def blobs() -> list[bytes]:
    layout = Layout.of(view)
    tiles = roll_up(layout, fold(layout, EVENTS))
    return codec.pack(layout, tiles, 2, kind=codec.STREAM, commit=7, cut_us=1_387_065_600_000_000)


def test_layout_is_pinned() -> None:
    layout = Layout.of(view)
    assert f"{layout.fingerprint:08x}" == (GOLDEN / "layout_v1.txt").read_text().strip()
    assert layout.record.names == (
        "start",
        "ring",
        "events",
        "newest",
        "latest_amount",
        "latest_amount__ts",
        "latest_amount__id",
        "present_amount",
        "squares_amount",
        "total_amount",
    )


def test_tile_blobs_are_pinned() -> None:
    assert [blob.hex() for blob in blobs()] == (GOLDEN / "tile_blobs_v2.hex").read_text().split()


@pytest.mark.parametrize("version", [1, 2])
def test_pinned_tile_blobs_are_readable(version: int) -> None:
    pinned = [bytes.fromhex(line) for line in (GOLDEN / f"tile_blobs_v{version}.hex").read_text().split()]
    headers, tiles = codec.unpack(Layout.of(view), pinned)
    assert headers["version"].tolist() == [version, version]
    assert headers["commit"].tolist() == [7, 7]
    assert headers["newest"].tolist() == [1_387_152_000_000_000, 1_387_065_600_000_001]
    assert tiles.records["events"][tiles.records["ring"] == 0].tolist() == [2, 1, 1]
    assert tiles.records.tobytes() == codec.unpack(Layout.of(view), blobs())[1].records.tobytes()
