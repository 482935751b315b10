"""The archive read back as a log: the events of each partition by offset, whatever order the files have."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from forebay.offline import replay as replaying
from forebay.offline.loading import load
from forebay.offline.replay import replay
from forebay.offline.tables import OfflineStore
from tests.stores.test_offline_archive import NOW_US, SOURCE, batch


@pytest.mark.parametrize("held", [replaying.HELD_ROWS_MAX, 10])
def test_stretches_come_back_in_order_as_they_were(
    offline_url: str, tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "HELD_ROWS_MAX", held)
    monkeypatch.setattr(replaying, "ROWS_MAX", 7)
    archive = OfflineStore(offline_url).archive(SOURCE)
    chance = random.Random(3)
    ends = {"p0": 0, "p1": 0, "p2": 0}
    for _ in range(12):
        name = chance.choice(list(ends))
        first, ends[name] = ends[name], ends[name] + chance.randint(1, 20)
        archive.append([batch(first, ends[name], name)], NOW_US)
    (tmp_path / "loaded.ndjson").write_bytes(
        b'{"event_id":"x","user":"u","item":7,"amount":1,"ts":"2024-01-02T00:00:00Z"}\n'
    )
    load(archive, tmp_path / "loaded.ndjson")
    stretches = {"p0": (3, ends["p0"] - 2), "p2": (0, ends["p2"])}
    found: dict[str, list[int]] = {}
    for name, rows in replay(archive, stretches):
        assert 0 < len(rows) <= 7
        first = rows["source_offset"][0].as_py()
        whole = batch(first, rows["source_offset"][-1].as_py() + 1, name)
        assert rows.combine_chunks().equals(whole.table.combine_chunks()), "as they were archived, to the bit"
        found.setdefault(name, []).extend(rows["source_offset"].to_pylist())
    assert found == {name: list(range(first, end)) for name, (first, end) in stretches.items()}


def test_of_many_partitions_each_has_its_own_stretch(offline_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "CONDITIONS_MAX", 2)
    archive = OfflineStore(offline_url).archive(SOURCE)
    archive.append([batch(0, 9, f"p{n}") for n in range(4)], NOW_US)
    stretches = {f"p{n}": (n, 9 - n) for n in range(4)}
    found = {name: rows["source_offset"].to_pylist() for name, rows in replay(archive, stretches)}
    assert found == {f"p{n}": list(range(n, 9 - n)) for n in range(4)}
