"""An error of a log ends a flow when all that was read before is durable: the log may not have it any more.

log      ├──── read ────┤ replaced
online   ├──────────────┤
archive  ├──────────────┤ also where the flow ends within its first second
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from forebay.errors import StoreError
from streaming.chunk import Chunk
from streaming.file_reader import FileReader
from streaming.stop import Stop
from tests.streaming.world import WAIT_S, World, await_that, check, lines


def test_what_was_read_before_an_error_of_its_log_is_in_both_stores(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.append("a.ndjson", lines(1, 700))
    poll, found = FileReader.poll, list[Chunk]()

    def broken(reader: FileReader) -> Sequence[Chunk]:
        if found:
            raise StoreError("the log was made anew")
        found.extend(poll(reader))
        return found

    monkeypatch.setattr(FileReader, "poll", broken)
    with pytest.raises(StoreError, match="the log was made anew"):
        world.run()
    assert world.archived() == world.applied() == len(world.log["a.ndjson"])
    check(world)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_all_workers_drain_and_the_error_is_said_in_one_line(world: World, workers: str) -> None:
    names = ("a.ndjson", "b.ndjson", "c.ndjson", "d.ndjson")
    for n, name in enumerate(names):
        world.append(name, lines(n, 700))
    with world.flow("--workers", workers) as process:
        await_that(lambda: world.applied() == sum(map(len, world.log.values())), process)
        (world.home / "orders" / "a.ndjson").write_bytes(b"{}\n")
        errors = process.communicate(timeout=WAIT_S)[1]
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert "a.ndjson" in errors
    check(world)


def test_the_first_error_is_the_one_that_is_said() -> None:
    of_log, of_store = StoreError("of the log"), StoreError("of a store")
    drains, fails = Stop(), Stop()
    with drains.draining():
        raise of_log
    assert (drains.requested, drains.failed, drains.has_drained) == (True, False, True)
    drains.fail(of_store)
    assert (drains.error, drains.failed, drains.has_drained) == (of_log, True, False)
    fails.fail(of_store)
    with fails.draining():
        raise of_log
    assert (fails.error, fails.failed, fails.has_drained) == (of_store, True, False)
