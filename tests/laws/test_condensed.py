"""Condensed records come back as they were, and what is no condensed record is refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay import LastK, WindowedView
from forebay.core import codec
from forebay.core.codec import HEADER, RECORDS
from forebay.core.condensed import condense, expand
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles
from forebay.errors import FormatError
from tests.golden.test_tile_blob import blobs, view

LAYOUT = Layout.of(view)
WIDTH = LAYOUT.record.itemsize
BITS = -(-WIDTH // 8)


@st.composite
def drawn(draw: st.DrawFn) -> Tiles:
    """Up to five entities with up to six records each, no two alike, which differ in one byte, in some or in all."""
    counts = draw(st.lists(st.integers(0, 6), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = rng.integers(0, 256, (1, WIDTH), np.uint8).repeat(sum(counts), axis=0)
    varying = rng.random(WIDTH) < draw(st.sampled_from([0, 0.1, 0.5, 1]))
    rows[:, varying] = rng.integers(0, 256, (len(rows), int(varying.sum())), np.uint8)
    rows[:, draw(st.integers(0, WIDTH - 1))] = np.arange(len(rows))
    return Tiles(np.repeat(np.arange(len(counts)), counts), rows.reshape(-1).view(LAYOUT.record))


def bodies(tiles: Tiles) -> list[bytes]:
    """What the blob of each of six entities has behind its header."""
    parts = condense(tiles.records, np.searchsorted(tiles.code, np.arange(7)))
    return [b"".join(data[edges[i] : edges[i + 1]].tobytes() for data, edges in parts) for i in range(6)]


@given(tiles=drawn())
def test_records_come_back(tiles: Tiles) -> None:
    found = bodies(tiles)
    back = expand(LAYOUT, found)
    assert back.code.tolist() == tiles.code.tolist()
    assert back.records.tobytes() == tiles.records.tobytes()
    for number, body in enumerate(found):
        count = int((tiles.code == number).sum())
        assert len(body) <= (BITS + count * WIDTH if count else 0)


@given(tiles=drawn(), cut=st.integers(1, 7 * WIDTH), more=st.integers(1, WIDTH))
def test_what_is_cut_or_grown_is_refused_or_whole_tiles(tiles: Tiles, cut: int, more: int) -> None:
    body = bodies(tiles)[0]
    for wrong in (body[:-cut], body + bytes(more)):
        with contextlib.suppress(FormatError):
            found = expand(LAYOUT, [wrong])
            assert found.records.nbytes % WIDTH == 0
            assert len(wrong) >= BITS + WIDTH if len(found) else not wrong


@pytest.mark.parametrize("size", [1, BITS, BITS + 1, BITS + WIDTH - 1, BITS + WIDTH + 1])
def test_what_is_no_whole_tile_is_refused(size: int) -> None:
    with pytest.raises(
        FormatError, match=f"'card_payments@1' have {size} condensed bytes, which are no whole tiles of"
    ):
        expand(LAYOUT, [bytes(size)])


def test_bits_behind_a_record_are_refused() -> None:
    assert WIDTH % 8, "this view has no bits to spare; take another"
    body = bytearray(blobs()[0][HEADER.itemsize :])
    body[BITS - 1] |= 0x80
    with pytest.raises(FormatError, match=r"card_payments@1' have \d+ condensed bytes, which are no whole tiles of"):
        expand(LAYOUT, [bytes(body)])


def test_blobs_of_both_versions_are_read_side_by_side() -> None:
    new = blobs()
    _, tiles = codec.unpack(LAYOUT, new)
    plain = [tiles.records[tiles.code == number].tobytes() for number in range(2)]
    old = [
        RECORDS.to_bytes(2, "little") + blob[2 : HEADER.itemsize] + body for blob, body in zip(new, plain, strict=True)
    ]
    for mixed in ([old[0], new[1]], [new[0], old[1]], [new[0], None, old[1]], [None, old[0], new[1], b""]):
        headers, found = codec.unpack(LAYOUT, mixed)
        assert found.records.tobytes() == tiles.records.tobytes()
        assert (np.diff(found.code) >= 0).all()
        assert headers["commit"].tolist() == [7 if blob else 0 for blob in mixed]


def test_frames_are_never_condensed() -> None:
    source, entity = view.source, view.entity
    features = [LastK("last_amounts", of="amount", k=2, windows=["24h"], default=[])]
    listed = Layout.of(WindowedView("card_lists", version=1, entity=entity, source=source, features=features))
    header = np.zeros(1, HEADER)
    header["version"], header["layout"] = codec.CONDENSED, listed.fingerprint
    with pytest.raises(FormatError, match=r"have format 2 and layout .*; expected 1 and "):
        codec.unpack(listed, [header.tobytes()])


@pytest.mark.parametrize("size", [1, HEADER.itemsize - 1])
def test_a_blob_that_is_shorter_than_a_header_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match=f"'card_payments@1' has {size} bytes, fewer than its header of 32"):
        codec.unpack(LAYOUT, [blobs()[0], blobs()[1][:size]])
