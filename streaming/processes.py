"""The workers of a flow as processes: one interpreter each, because a second thread waits for the first one's.

    run ── take over, find the positions ──▶ start ──┬── worker 0 ── its partitions ─▶ its lanes ─▶ Redis
           wait ◀── what each did, or why it ended ──┤      ╲ ╱   pieces for the other's lanes go over a socket
                                                     └── worker 1                                of 127.0.0.1

Lives here: starting them, watching them, adding up what they did. Bytewax carries the pieces (its cluster). Invariants:
the flow takes over once, before any worker starts; when one worker dies or fails, all end, and the first reason is the
one said. A worker whose parent has died ends at once. Nothing of this is needed for exactly-once: it is all as if
killed. Workers listen while they connect; what they are sent then and later is unpickled only under the flow's seal
(`seal.py`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import socket
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import NoReturn

from forebay.errors import StoreError
from forebay.online.connection import connect_online
from streaming.board import Board
from streaming.engine import Place, drive
from streaming.interpreter import end_process, prepare_process
from streaming.logs import configure
from streaming.metrics import port_of_worker
from streaming.parts import Taken, Task, worker_parts
from streaming.retry import Patience
from streaming.seal import Seal, new_key
from streaming.stop import Stop
from streaming.summary import Summary

HOST = "127.0.0.1"
END_WITHIN_S = 10.0
"""How long the others have to end once one worker has died or failed, before they are killed."""
DEAD = 70
"""The exit code of a worker whose parent has died."""


@dataclass(frozen=True)
class Orders:
    """What a worker is started with."""

    task: Task
    taken: Taken
    worker: int
    addresses: list[str]
    board: Board
    key: bytes = field(repr=False)
    """Of the seal on what the workers send each other."""
    metrics_port: int = 0
    """Each worker serves what it counts at one behind this (`port_of_worker`); 0 where nobody wants it."""
    log_format: str | None = None


@dataclass(frozen=True)
class Ended:
    """How a worker ended: what it did, the error that it ended with, and whether all that it had read is durable."""

    summary: Summary
    error: BaseException | None
    has_drained: bool = False


def run_processes(
    task: Task,
    taken: Taken,
    board: Board,
    stop: Stop,
    summary: Summary,
    metrics_port: int = 0,
    log_format: str | None = None,
) -> None:
    """Run each worker of a flow as a process until all have ended. An error is in `stop`."""
    context = multiprocessing.get_context("spawn")
    addresses = _free_addresses(task.workers)
    stop.join(board)
    task = replace(task, patience=Patience(task.patience.give_up_after_s))
    key = new_key()
    orders = [Orders(task, taken, n, addresses, board, key, metrics_port, log_format) for n in range(task.workers)]
    running: list[_Running] = []
    try:
        for one in orders:
            running.append(_Running.start(context, one))
        _watch(running, stop)
    finally:
        for each in running:
            each.end()
    for each in running:
        if each.ended is not None:
            summary.add(each.ended.summary)


class _Running:
    """A worker that was started."""

    def __init__(self, number: int, of: int, process: SpawnProcess, says: Connection) -> None:
        self.name, self.process, self.says = f"Worker {number + 1} of {of}", process, says
        self.ended: Ended | None = None
        self.has_spoken = False

    @staticmethod
    def start(context: SpawnContext, orders: Orders) -> _Running:
        """Start one."""
        says, tell = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(orders, tell), name=f"forebay-worker-{orders.worker}")
        resource_tracker.ensure_running()  # it would be started with the first process, and let signals in
        with Stop.signals_held():
            process.start()
        tell.close()
        return _Running(orders.worker, orders.task.workers, process, says)

    def why(self) -> BaseException | None:
        """The error that it ended with, if it has."""
        code = self.process.exitcode  # before it is heard: it speaks first
        self._hear()
        if self.ended is not None:
            return self.ended.error
        if code is None:
            return None
        how = f"was killed by signal {-code}" if code < 0 else f"died with exit code {code}"
        return StoreError(
            f"{self.name} (process {self.process.pid}) {how}; the others were ended. Start the stream again: it goes "
            "on from what the stores hold."
        )

    def _hear(self) -> None:
        """Take what it says at its end."""
        if not self.has_spoken and self.says.poll():
            self.has_spoken = True
            with contextlib.suppress(EOFError):
                self.ended = self.says.recv()

    def end(self) -> None:
        """See that it has ended."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.says.close()


def _watch(running: list[_Running], stop: Stop) -> None:
    """Return when all have ended, or some while after one has failed. Of the reasons, one that explains is kept.

    Where one ended with an error of its log the others drain as it did, for as long as that takes.
    """
    deadline_s: float | None = None
    lost: BaseException | None = None
    of_log: BaseException | None = None
    while True:
        alive = [one for one in running if one.process.is_alive()]
        for one, reason in [(one, reason) for one in running if (reason := one.why()) is not None]:
            if one.ended is not None and one.ended.has_drained:
                of_log = of_log or reason
            elif isinstance(reason, _LostError):
                lost = lost or reason
                stop.request()
            elif stop.error is None:
                stop.fail(reason)
        if deadline_s is None and (lost or stop.error):
            deadline_s = time.monotonic() + END_WITHIN_S
        if not alive or (deadline_s is not None and time.monotonic() >= deadline_s):
            break
        waiting = [one.process.sentinel for one in alive] + [one.says for one in alive if not one.has_spoken]
        wait(waiting, timeout=None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
    if of_log is not None:
        stop.drain(of_log)
    elif lost is not None and stop.error is None:
        stop.fail(lost)


class _LostError(StoreError):
    """Another worker was lost: why is for that one to say, or for its parent."""


def _work(orders: Orders, tell: Connection) -> NoReturn:
    work(orders, tell)
    end_process(0)


def work(orders: Orders, tell: Connection) -> None:
    """The process of a worker: run its part of the flow, and say how it ended."""
    _end_with_parent()
    _quieten()
    configure(orders.log_format, orders.worker)
    prepare_process()
    Seal(orders.key).put_on()
    stop, summary = Stop(orders.board), Summary()
    with stop.on_signals():
        try:
            with stop.failing():
                _run(orders, stop, summary)
        except BaseException as error:  # noqa: BLE001  Bytewax panics where the connection to another worker breaks
            stop.fail(_LostError(f"The connection to another worker broke: {error}"))
        tell.send(Ended(summary, _sendable(stop.error), stop.has_drained))


def _run(orders: Orders, stop: Stop, summary: Summary) -> None:
    task = replace(
        orders.task, patience=replace(orders.task.patience, retried=summary.retried, enough=lambda: stop.failed)
    )
    online = task.patience(lambda: connect_online(task.settings))
    parts = worker_parts(task, orders.taken, orders.worker, online, stop, summary, orders.board)
    with contextlib.ExitStack() as stack:
        if orders.metrics_port:
            stack.enter_context(summary.metrics.served(port_of_worker(orders.metrics_port, orders.worker)))
        drive(parts, Place(orders.worker, orders.addresses))


def _sendable(error: BaseException | None) -> BaseException | None:
    """An error that another process can read."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  whatever an exception of a library holds
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(DEAD)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _quieten() -> None:
    """What Bytewax prints of its connections, and of their end, goes nowhere: the parent says why a worker ended.

    `sys.__stderr__` is the flow's standard error still, for what is meant to be read.
    """
    sys.__stderr__ = os.fdopen(os.dup(2), "w", buffering=1)  # type: ignore[misc]  # final for those who only print
    nowhere = open(os.devnull, "w")  # noqa: SIM115  to the end of the process
    for number in (1, 2):
        os.dup2(nowhere.fileno(), number)
    sys.stdout = sys.stderr = nowhere


def _free_addresses(count: int) -> list[str]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [f"{HOST}:{one.getsockname()[1]}" for one in sockets]
