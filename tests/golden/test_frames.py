"""The bytes and columns of tiles with cells are pinned, and the hash and the bins that lie in them.

To change them on purpose: a new version in `forebay.core.codec`, described in docs/formats.md, named in the changelog,
and new files from `blobs` and `columns`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from forebay import (
    CountDistinct,
    DecayedCount,
    DecayedSum,
    Decimal,
    Entity,
    EventSource,
    FirstK,
    Histogram,
    LastK,
    Quantile,
    String,
    Timestamp,
    TopK,
    WindowedView,
)
from forebay.algebra.bins import bins_of, middles_of
from forebay.algebra.hashes import hashes_of
from forebay.core import codec
from forebay.core.events import Column, Events
from forebay.core.layout import Layout
from forebay.core.tiles import fold, roll_up
from forebay.errors import FormatError
from forebay.offline.tiles_columns import from_table, tiles_schema, to_table

GOLDEN = Path(__file__).parent
VIEW = WindowedView(
    "card_lists",
    version=1,
    entity=Entity("card", keys={"card": String}),
    source=EventSource(
        "payments",
        schema={
            "id": String(max_bytes=4),
            "card": String,
            "word": String(max_bytes=12),
            "amount": Decimal(2),
            "ts": Timestamp,
        },
        timestamp="ts",
        event_id="id",
    ),
    features=[
        LastK("last", of="word", k=2, windows=["24h"], default=[]),
        FirstK("first", of="amount", k=1, windows=["1h"], default=[]),
        CountDistinct("words", of="word", k=16, windows=["24h"], default=0),
        TopK("top", of="word", k=2, cap=2, windows=["24h"], default=[]),
        Quantile("median", of="amount", windows=["24h"], default=0.0),
        Histogram("spread", of="amount", edges=[0, "12.50"], windows=["24h"], default=[]),
        DecayedSum("fresh", of="amount", half_life="1h", windows=["24h"], default=0.0),
        DecayedCount("recent", half_life="90m", windows=["24h"], default=0.0),
    ],
)
LAYOUT = Layout.of(VIEW)
EVENTS = Events(
    keys=pa.array(["c1", "c2"]),
    code=np.array([0, 1, 0, 0, 0], np.int64),
    ts=1_387_065_600_000_000 + np.array([0, 1, 59_999_999, 86_400_000_000, 1], np.int64),
    ids=np.array([b"a", b"b", b"c", b"d", b"e"], "S4"),
    offset=np.arange(5),
    columns={
        "amount": Column(np.array([1250, -1, 0, 2**53, -75]), np.array([True, True, False, True, True])),
        "word": Column(np.array([b"one", b"two", b"one", b"a longer one", b"three"], "S12"), np.array([True] * 5)),
    },
)

HASHES_OF_NUMBERS = ["2756f015088477d6", "2da31d555a9872c2", "aa809e4552d2dbdf"]
HASHES_OF_FLOATS = ["2756f015088477d6", "2756f015088477d6", "36ff454efbe9db6a"]
HASHES_OF_TEXTS = ["e220a8397b1dcdaf", "5d14e5af3195fdaf", "399415001de3ee12"]


def blobs() -> list[bytes]:
    tiles = roll_up(LAYOUT, fold(LAYOUT, EVENTS))
    return [
        *codec.pack(LAYOUT, tiles, 2, kind=codec.STREAM, commit=7, cut_us=1_387_065_600_000_000),
        *codec.pack_pending(LAYOUT, fold(LAYOUT, EVENTS), 2).to_pylist(),
    ]


def columns() -> str:
    lines = [f"{LAYOUT.fingerprint:08x}", *(f"{field.name}: {field.type}" for field in tiles_schema(LAYOUT))]
    return "\n".join(lines) + "\n"


def test_frames_are_pinned() -> None:
    assert [blob.hex() for blob in blobs()] == (GOLDEN / "frame_blobs_v1.hex").read_text().split()


def test_pinned_frames_are_readable() -> None:
    pinned = [bytes.fromhex(line) for line in (GOLDEN / "frame_blobs_v1.hex").read_text().split()]
    headers, tiles = codec.unpack(LAYOUT, pinned[:2])
    assert headers["commit"].tolist() == [7, 7]
    finest = tiles.take((tiles.records["ring"] == 0) & (tiles.code == 0))
    lasts = finest.cells["lasts_2_word"]
    assert (lasts.counts.tolist(), lasts.cells["value"].tolist()) == ([2, 1], [b"three", b"one", b"a longer one"])
    assert finest.cells["values_2_word"].cells["count"].tolist() == [2, 1, 1]
    appended = codec.unpack_records(LAYOUT, [pinned[2] + pinned[3], None])
    assert appended.code.tolist() == [0, 0, 0]


@pytest.mark.parametrize("cut", [1, 3, 60, 400])
def test_torn_frames_are_refused(cut: int) -> None:
    body = blobs()[2]
    with pytest.raises(FormatError, match="no whole frames; they were written for another definition"):
        codec.unpack_records(LAYOUT, [body, body[:-cut]])


def test_columns_are_pinned_and_come_back() -> None:
    assert columns() == (GOLDEN / "cells_v1.txt").read_text()
    tiles = roll_up(LAYOUT, fold(LAYOUT, EVENTS))
    keys, back = from_table(LAYOUT, to_table(LAYOUT, EVENTS.keys, tiles))
    assert (keys, back.records.tobytes()) == (EVENTS.keys.to_pylist(), tiles.records.tobytes())
    for name, ragged in tiles.cells.items():
        assert back.cells[name].cells.tobytes() == ragged.cells.tobytes(), name


def test_hashes_are_pinned() -> None:
    """Computed once by the loops of the oracle: text hashes alike however wide it is stored."""
    assert [f"{h:016x}" for h in hashes_of(np.array([0, -1, 2**63 - 1]))] == HASHES_OF_NUMBERS
    assert [f"{h:016x}" for h in hashes_of(np.array([0.0, -0.0, 1.5]))] == HASHES_OF_FLOATS
    for width in ("S12", "S16", "S200"):
        assert [f"{h:016x}" for h in hashes_of(np.array([b"", b"one", b"a longer one"], width))] == HASHES_OF_TEXTS


def test_bins_are_pinned() -> None:
    numbers = np.array([0.0, 2.0**-41, 2.0**-40, 1.0, -1.0, 1.5, 2.0**63, 2.0**64])
    assert bins_of(numbers).tolist() == [0, 0, 1, 2561, -2561, 2593, 6593, 6657]
    assert middles_of(bins_of(np.arange(-127, 128)), whole=True).tolist() == list(range(-127, 128))
