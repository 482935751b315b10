"""What a commit sends is the same bytes, whether its rows are few or many."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from forebay.core.identity import slots_of
from forebay.online import appends
from forebay.online.appends import FEW, Appends
from forebay.online.keys import Keys
from forebay.online.resp import Commands, part, section


def both(count: int, monkeypatch: pytest.MonkeyPatch) -> list[list[Commands]]:
    """The commands for some entities, packed one by one and by Arrow; EXPIRE of every other one."""
    texts = [f"ü%{n}" if n % 7 else "x" * n for n in range(1, count + 1)]
    entities = pa.array(texts)
    bodies = pa.array([bytes([n % 256]) * (n % 300) for n in range(count)], pa.binary())
    rows = np.arange(0, count, 2)
    found = []
    for few in (count, 0):
        monkeypatch.setattr(appends, "FEW", few)
        made = Appends(Keys("test"), "spend@1", entities, slots_of(entities))
        found.append([made.append(bodies), made.expire(rows, rows * 1_000_003 + 1)])
    return found


@pytest.mark.parametrize("count", [1, 2, FEW])
def test_few_rows_are_the_bytes_that_many_would_be(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = both(count, monkeypatch)
    for one, other in zip(few, many, strict=True):
        assert bytes(one.data) == bytes(other.data)
        assert one.edges.tolist() == other.edges.tolist()
        assert one.keys.tolist() == other.keys.tolist()
        assert one.reply == other.reply


def test_parts_of_few_rows_are_whole_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    (appended, _), _ = both(9, monkeypatch)
    whole = bytes(part(appended, slice(0, 9)).data)
    assert b"".join(bytes(section(appended, slice(n, n + 1)).data) for n in range(9)) == whole
