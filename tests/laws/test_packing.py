"""Compiled loops choose the tiles and write the bytes that whole-array operations do."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from forebay.core.layout import PENDING, Layout
from forebay.core.tiles import Tiles
from forebay.errors import RequestError
from forebay.instants import DAY_US, HOUR_US
from forebay.language.view import WindowedView
from forebay.online import chosen as module
from forebay.online import publish
from forebay.online.chosen import Chosen
from forebay.online.keys import BATCH, Keys
from forebay.online.progress import Cut
from tests.stores.online_world import MIDNIGHT_US, Order, batch_tiles, ever, recent

Given = tuple[list[str], Tiles]


def drawn(view: WindowedView, chance: random.Random) -> Given:
    """Tiles of some entities, many of them older than any window, in any order of entities."""
    names = [f"u{number}" * chance.choice([1, 1, 30]) for number in range(chance.choice([0, 1, 5, 300]))]
    orders = []
    for name in names:
        for _ in range(chance.choice([1, 2, 40])):
            orders.append(Order(name, MIDNIGHT_US - chance.randrange(1, 3 * DAY_US), len(orders), len(orders)))
    keys, tiles = batch_tiles(view, orders, MIDNIGHT_US)
    if chance.random() < 0.5:
        return keys, Tiles(tiles.code[::-1], tiles.records[::-1])
    return keys, tiles


def packed(view: WindowedView, given: Given, together: int, monkeypatch: pytest.MonkeyPatch, tiles: int) -> list[bytes]:
    """The commands of a publication, where so many tiles are many."""
    monkeypatch.setattr(module, "COMPILED_TILES", tiles)
    layout = Layout.of(view)
    chosen = Chosen.of(layout, *given, MIDNIGHT_US)
    assert chosen.compiled == (tiles == 0)
    setting = publish._Setting(Keys("n"), view, BATCH, MIDNIGHT_US + HOUR_US, 1_700_000_000_000, together)
    found = []
    for commands, _ in publish._tile_commands(setting, layout, chosen, Cut(MIDNIGHT_US, 7)):
        edges = commands.edges.tolist()
        found += [bytes(commands.data[a:b]) for a, b in itertools.pairwise(edges)]
        found.append(repr((commands.keys.tolist(), commands.reply)).encode())
    return found


@pytest.mark.parametrize("view", [recent, ever])
@pytest.mark.parametrize("together", [1, 32])
def test_the_bytes_are_the_same(view: WindowedView, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "PACK_BYTES", 1 << 15)
    for seed in range(25):
        given = drawn(view, random.Random(seed))
        compiled = packed(view, given, together, monkeypatch, 0)
        assert compiled == packed(view, given, together, monkeypatch, 10**9), f"seed {seed}"


@pytest.mark.parametrize(("field", "value"), [("ring", PENDING), ("start", MIDNIGHT_US)])
def test_what_is_wrong_is_found_by_both(field: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, tiles = batch_tiles(recent, [Order("ann", MIDNIGHT_US - HOUR_US + i, i) for i in range(9)], MIDNIGHT_US)
    tiles.records[field][np.flatnonzero(tiles.records["ring"] == 0)[-1]] = value
    for many in (0, 10**9):
        monkeypatch.setattr(module, "COMPILED_TILES", many)
        with pytest.raises(RequestError, match=r"a tile at 2013-12-1\d.* is pending or not before the cut 2013-12-15"):
            Chosen.of(Layout.of(recent), keys, tiles, MIDNIGHT_US)


@pytest.mark.parametrize("span_us", [0, 1, DAY_US, 10**16])
def test_entities_are_ordered_by_slot_and_there_by_about_their_newest_event(span_us: int) -> None:
    rng = np.random.default_rng(span_us % 97)
    slots, newest_us = rng.integers(0, 64, 5_000), -(10**15) + rng.integers(0, span_us + 1, 5_000)
    order = module.by_slot(slots, newest_us)
    assert sorted(order.tolist()) == list(range(5_000))
    assert (np.diff(slots[order]) >= 0).all()
    back_us = np.where(np.diff(slots[order]) == 0, np.diff(newest_us[order]), 0).min()
    assert -back_us <= span_us // module.STEPS + 1
    assert module.by_slot(slots[:0], newest_us[:0]).tolist() == []
