"""What a flow asks of its processes: whoever has nothing to do rests."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.streaming.world import World, await_that, check, end, lines

LOOK_S = 2.0


def test_the_first_thread_of_a_worker_rests_and_the_one_that_works_does_not(world: World) -> None:
    """Bytewax lets the first thread look for signals a thousand times a second; the other looks for events."""
    world.append("a.ndjson", lines(3, 4_000))
    with world.flow("--workers", "2") as process:
        await_that(lambda: world.applied() == len(world.log["a.ndjson"]), process)
        before = dict(wakes(process.pid))
        time.sleep(LOOK_S)
        after = dict(wakes(process.pid))
        workers = {worker for worker, _ in before}
        assert len(workers) == 2
        for worker in workers:
            rates = {of[1]: (after[of] - before[of]) / LOOK_S for of in before if of[0] == worker}
            assert rates.pop(worker) < 500
            assert max(rates.values()) > 100
        code, _, errors = end(process, signal.SIGTERM)
    assert (code, errors) == (0, "")
    check(world)


def wakes(pid: int) -> Iterator[tuple[tuple[int, int], int]]:
    """How often each thread of each worker of a flow has waited; the first has the number of its process."""
    for worker in children(pid):
        if b"spawn_main" in Path(f"/proc/{worker}/cmdline").read_bytes():
            for thread in Path(f"/proc/{worker}/task").iterdir():
                status = (thread / "status").read_text().splitlines()
                waited = next(line for line in status if line.startswith("voluntary_ctxt_switches"))
                yield (worker, int(thread.name)), int(waited.split()[1])


def children(pid: int) -> list[int]:
    return [int(one) for task in Path(f"/proc/{pid}/task").glob("*/children") for one in task.read_text().split()]
