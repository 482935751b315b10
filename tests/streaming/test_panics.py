"""What ends a flow besides errors, and how: panics of libraries, workers that cannot be started, more than one reason.

delta writer    a thread that died would archive nothing, and the flow would say that it ended well
lanes, logs     Bytewax would print a stack of its own, and not what happened
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forebay.errors import FencedError, StoreError, StoreMovingError
from forebay.language.definitions import Definitions
from forebay.online.lane import Lane
from streaming import processes
from streaming.board import Board
from streaming.offline import Offline
from streaming.parts import Taken, Task
from streaming.processes import Ended, Orders, run_processes
from streaming.run import parse, run
from streaming.stop import Stop
from streaming.summary import Summary
from tests.streaming.world import CHECKOUT, VIEWS, WAIT_S, World, check, lines, orders

PANICS = """
import importlib

class Panic(BaseException):
    pass

def panic(*arguments, **more):
    raise Panic("of a library")

setattr(getattr(importlib.import_module({module!r}), {kind!r}), {method!r}, panic)
"""


@pytest.mark.parametrize(
    ("module", "kind", "method", "workers"),
    [
        ("streaming.offline", "Offline", "append_events", "1"),
        ("streaming.offline", "Offline", "append_events", "2"),
        ("streaming.lane_writer", "LaneWriter", "write", "1"),
        ("streaming.lane_writer", "LaneWriter", "write", "2"),
        ("streaming.split", "Splitter", "__call__", "1"),
        ("streaming.file_reader", "FileReader", "poll", "1"),
    ],
)
def test_a_panic_ends_the_flow_in_one_line(
    world: World, tmp_path: Path, module: str, kind: str, method: str, workers: str
) -> None:
    names = ("a.ndjson", "b.ndjson", "c.ndjson", "d.ndjson")
    for n, name in enumerate(names):
        world.append(name, lines(n, 300))
    (tmp_path / "sitecustomize.py").write_text(PANICS.format(module=module, kind=kind, method=method))
    flow = subprocess.run(
        [sys.executable, "-m", "streaming", "--until-end", "--workers", workers],
        cwd=CHECKOUT,
        env=world.environment() | {"PYTHONPATH": f"{tmp_path}:{CHECKOUT}"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (flow.returncode, flow.stdout, flow.stderr) == (2, "", "error: Panic: of a library\n")
    world.run()
    check(world)


def test_a_flow_that_has_failed_waits_for_no_other_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of a slot may be on their way for an hour: who has been replaced does not wait for them."""
    world.append("a.ndjson", lines(1, 300))

    def moving(lane: Lane, pieces: Any) -> Any:
        raise StoreMovingError("a slot is on its way")

    def fenced(offline: Offline, chunks: Any) -> Any:
        raise FencedError("another flow took over")

    monkeypatch.setattr(Lane, "commit", moving)
    monkeypatch.setattr(Offline, "append_events", fenced)
    stop = Stop()
    run(world.settings, parse(["--until-end"]), stop, Summary())
    assert isinstance(stop.error, FencedError)


def test_a_worker_that_cannot_be_started_ends_those_that_were(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []

    class Started:
        def __init__(self, worker: int) -> None:
            self.worker = worker

        @staticmethod
        def start(context: object, one: Orders) -> Started:
            if one.worker:
                raise OSError("Resource temporarily unavailable")
            return Started(one.worker)

        def end(self) -> None:
            ended.append(self.worker)

    monkeypatch.setattr(processes, "_Running", Started)
    task = Task(world.settings, Definitions.of(*VIEWS), [orders], workers=2)
    with pytest.raises(OSError, match="temporarily unavailable"):
        run_processes(task, cast("Taken", None), Board(2), Stop(), Summary())
    assert ended == [0]


def test_a_summary_that_cannot_be_printed_makes_nothing_less_durable(world: World) -> None:
    world.append("a.ndjson", lines(1, 300))
    command = [sys.executable, "-m", "streaming", "--until-end"]
    with open("/dev/full", "w") as full:
        flow = subprocess.run(
            command, cwd=CHECKOUT, env=world.environment(), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (flow.returncode, flow.stderr) == (0, b"")
    check(world)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_workers_errors_that_of_the_log_is_said(order: int) -> None:
    of_log, of_store, stop = StoreError("of the log"), StoreError("of a store"), Stop()
    running = [over(of_log, has_drained=True), over(of_store, has_drained=False)]
    processes._watch(cast("Any", running[::order]), stop)
    assert stop.error is of_log


def over(error: StoreError, *, has_drained: bool) -> SimpleNamespace:
    """A worker that has ended."""
    return SimpleNamespace(
        process=SimpleNamespace(is_alive=lambda: False),
        ended=Ended(Summary(), error, has_drained),
        why=lambda: error,
    )
