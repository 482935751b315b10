"""The positions that a table's object knows are those that deltalake would tell, and it is rarely asked."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from deltalake import DeltaTable

from forebay.offline import known_positions
from forebay.offline.commit import Commit, Position
from forebay.offline.delta_log import DeltaLog
from forebay.offline.lake_table import LakeTable
from forebay.offline.tables import OfflineStore
from tests.stores.test_offline_archive import SOURCE

NAMES = ("p0", "p1", "p2")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What deltalake is asked for."""
    names: list[str] = []
    ask = DeltaTable.transaction_version

    def spy(table: DeltaTable, app_id: str) -> int | None:
        names.append(app_id)
        return ask(table, app_id)

    monkeypatch.setattr(DeltaTable, "transaction_version", spy)
    return names


def writer(url: str) -> LakeTable:
    """An object of its own for the table of them all."""
    return OfflineStore(url).archive(SOURCE).table


def told(table: LakeTable) -> dict[str, int | None]:
    """What deltalake says."""
    snapshot = table.snapshot()
    assert snapshot is not None
    return {name: snapshot.transaction_version(name) for name in NAMES}


def move(table: LakeTable, *names: str) -> dict[str, int | None]:
    """Move positions on by one; what they were thought to be."""
    known: dict[str, int | None] = {}

    def prepare(position: Position) -> Commit:
        known.update({name: position(name) for name in NAMES})
        return Commit(table.schema.empty_table(), {name: (known[name] or 0) + 1 for name in names})

    table.append(prepare)
    return known


@pytest.mark.parametrize("asked_max", [0, 1, 64])
@pytest.mark.parametrize("seed", range(3))
def test_writers_that_take_turns_know_what_deltalake_tells(
    tmp_path: Path, seed: int, asked_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_positions, "BEHIND_MAX", 3)
    monkeypatch.setattr(known_positions, "ASKED_MAX", asked_max)
    chance, writers = random.Random(seed), [writer(str(tmp_path)) for _ in range(3)]
    move(writers[0], "p0")
    for n in range(25):
        if n in (8, 16):
            chance.choice(writers).checkpoint()
        before = told(writers[0])
        assert move(chance.choice(writers), *chance.sample(NAMES, chance.randint(1, 2))) == before


def test_a_lone_writer_asks_once(tmp_path: Path, asked: list[str]) -> None:
    table = writer(str(tmp_path))
    for _ in range(4):
        move(table, "p0")
    assert sorted(asked) == sorted(NAMES)


def test_what_others_commit_is_read_from_their_commits(tmp_path: Path, asked: list[str]) -> None:
    one, other = writer(str(tmp_path)), writer(str(tmp_path))
    move(one, "p0")
    move(other, "p1")
    asked.clear()
    assert move(one, "p0") == {"p0": 1, "p1": 1, "p2": None}
    assert asked == []


def test_where_a_commit_is_gone_deltalake_is_asked(tmp_path: Path, asked: list[str]) -> None:
    one, other = writer(str(tmp_path)), writer(str(tmp_path))
    move(one, "p0")
    move(other, "p1")
    other.checkpoint()
    summed_up = max((tmp_path / "events" / SOURCE.name / "_delta_log").glob("*.json"))
    move(other, "p2")
    assert one.snapshot() is not None  # it has read both
    summed_up.unlink()
    asked.clear()
    assert move(one, "p0") == {"p0": 1, "p1": 1, "p2": 1}
    assert sorted(asked) == sorted(NAMES)


def test_a_commit_that_came_in_between_is_seen(tmp_path: Path) -> None:
    """one    p0=1  reads ───────────▶ p0=2      of p1 it had read nothing yet but what was before
    other          p1=1                      the two don't meet, so Delta takes both"""
    one, other = writer(str(tmp_path)), writer(str(tmp_path))
    move(one, "p0")

    def prepare(position: Position) -> Commit:
        assert (position("p0"), position("p1")) == (1, None)
        move(other, "p1")
        return Commit(one.schema.empty_table(), {"p0": 2})

    one.append(prepare)
    assert move(one, "p0") == {"p0": 2, "p1": 1, "p2": None}


def test_very_many_are_read_at_once(tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_positions, "ASKED_MAX", 2)
    names, table, found = [f"p{n}" for n in range(500)], writer(str(tmp_path)), list[int | None]()
    move(table, *NAMES)
    asked.clear()

    def prepare(position: Position) -> Commit:
        found.extend(map(position, names))
        return Commit(table.schema.empty_table(), dict.fromkeys(names, 7))

    for one in (table, writer(str(tmp_path))):
        one.append(prepare)
    assert found == [1, 1, 1, *[None] * 497, *[7] * 500]
    assert len(asked) <= 4


def test_what_a_later_checkpoint_has_summed_up_is_not_told(tmp_path: Path) -> None:
    table = writer(str(tmp_path))
    for _ in range(3):
        move(table, "p0")
    log = DeltaLog(table.location, table.path)
    assert [log.transactions(version).get("p0") for version in range(4)] == [None, 1, 2, 3]
    table.checkpoint()
    assert log.transactions(3)["p0"] == table.positions()["p0"] == 3
    with pytest.raises(FileNotFoundError, match="of version 3, after 2"):
        log.transactions(2)
