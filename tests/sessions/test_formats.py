"""What sessions leave in the stores, to the byte: instants that are not settled, and the ids of sessions."""

from __future__ import annotations

import numpy as np
import pytest

from forebay.core.sessions import Rule, session_ids
from forebay.core.unsettled import Unsettled, pack_instants, unpack_instants
from forebay.errors import FormatError
from tests.sessions.world import World, at, by_page, by_visitor, visit

EVENTS = Unsettled(np.array([1, 0, 1, 1]), np.array([1_709_251_200_000_000, -1, 5, 5]))


def test_pending_events_are_their_instants() -> None:
    bodies = pack_instants(EVENTS, 3)
    assert [body.hex() for body in bodies] == [
        "ffffffffffffffff",
        "00a09b0e8e120600" + "0500000000000000" * 2,
        "",
    ]
    back = unpack_instants("v@1", [*bodies[:2], None])
    assert (back.code.tolist(), back.ts.tolist()) == ([0, 1, 1, 1], [-1, 1_709_251_200_000_000, 5, 5])


def test_torn_instants_are_refused() -> None:
    with pytest.raises(FormatError) as caught:
        unpack_instants("v@1", [b"12345678", b"123"])
    assert str(caught.value) == (
        "The pending events of view 'v@1' have 3 bytes, which is no multiple of 8; they were written for another "
        "definition. Rebuild the store."
    )


def test_the_id_of_a_session_is_when_it_starts() -> None:
    ids = session_ids(np.array([1_709_251_200_000_000, 0, -1], np.int64))
    assert ids.tolist() == [b"8006128e0e9ba000", b"8000000000000000", b"7fffffffffffffff"]


def test_whole_sessions_leave_before_a_horizon() -> None:
    """
    minute     0   10        50   │ 85            gap 20m: over at 30 and 70; the horizon of the entity is 70
    """
    minutes = np.array([50, 0, 85, 10], np.int64)
    done, left = Unsettled(np.zeros(4, np.int64), minutes).split(Rule(20, 60), np.array([70]))
    assert (done.start_us.tolist(), done.events.tolist(), left.ts.tolist()) == ([0], [2], [50, 85])


def test_the_tiles_table_says_from_when_on_a_day_was_folded(world: World) -> None:
    from forebay.backfill.tiles import fold_dates

    world.archive([visit(0, at(0, 23, 50)), visit(1, at(1, 0, 10)), visit(2, at(3, 5))], "load:" + "0" * 16)
    for view in (by_visitor, by_page):
        fold_dates(world.store, view, at(0), at(4))
    positions = world.store.tiles(by_visitor).table.positions()
    assert {day: positions[f"fold/2024-03-0{day}"] for day in (1, 2, 3, 4)} == {1: 1, 2: 2, 3: 1, 4: 1}
    assert {day: positions[f"since/2024-03-0{day}"] for day in (1, 2, 3, 4)} == {
        1: at(-1),
        2: at(0),
        3: at(1),
        4: at(2),
    }
