"""What travels between workers is unpickled only if one of them sealed it."""

from __future__ import annotations

import multiprocessing
import pickle
import socket
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forebay.errors import StoreError
from streaming import processes
from streaming.seal import HELD_MAX, SEAL_BYTES, Seal, new_key
from tests.streaming.test_bytewax import ran


class Opened:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_only_what_was_sealed_with_the_key_is_unpickled(tmp_path: Path) -> None:
    ours, theirs = Seal(new_key()), Seal(new_key())
    item = ("00", {"n": [1, 2.5, b"x"]})
    assert ours.loads(ours.dumps(item)) == item
    assert pickle.loads(ours.dumps(item)[SEAL_BYTES:]) == item
    trap = Opened(tmp_path / "opened")
    sealed = ours.dumps(item)
    for sent in (pickle.dumps(trap), theirs.dumps(trap), sealed[:-1], sealed[:SEAL_BYTES] + pickle.dumps(trap), b""):
        with pytest.raises(StoreError, match="was not sent by one of this flow"):
            ours.loads(sent)
    assert not trap.path.exists()
    assert "secret" not in repr(Seal(b"secret"))


class Counted:
    """Counts how often it is pickled."""

    def __init__(self) -> None:
        self.pickled = 0

    def __reduce__(self) -> tuple[Any, ...]:
        self.pickled += 1
        return int, (7,)


def test_an_item_is_pickled_once_for_two_passes_over_a_message() -> None:
    seal, items = Seal(new_key()), [Counted() for _ in range(HELD_MAX)]
    for passes in (1, 2):
        both = [[seal.dumps(item) for item in items] for _ in range(2)]
        assert both[0] == both[1]
        assert [seal.loads(sealed) for sealed in both[1]] == [7] * HELD_MAX
        assert {item.pickled for item in items} == {passes}
        assert not seal.held
    others = [Counted() for _ in range(3 * HELD_MAX)]
    assert {seal.loads(seal.dumps(item)) for item in others} == {7}
    assert len(seal.held) == HELD_MAX, "of what is pickled once only so much is held"


def test_bytewax_seals_and_opens_what_it_sends() -> None:
    """With one key two workers understand each other; with two, neither unpickles what comes, and both end.

    Bytewax pickles all of a message twice: nothing is held at the end.
    """
    both = _cluster([b"k" * 32, b"k" * 32])
    assert [[len(items) for items in one.values()] for one, _ in both] == [[100, 100], [100, 100]]
    assert [held for _, held in both] == [0, 0]
    assert _cluster([b"k" * 32, b"j" * 32]) == ["ended", "ended"]


def test_the_process_of_a_worker_puts_the_seal_on_before_it_runs() -> None:
    context = multiprocessing.get_context("spawn")
    hear, tell = context.Pipe(duplex=False)
    process = context.Process(target=_worker_that_opens, args=(pickle.dumps("open"), tell), daemon=True)
    process.start()
    error = hear.recv().error
    process.join()
    assert isinstance(error, StoreError)
    assert "was not sent by one of this flow" in str(error)


def _worker_that_opens(sent: bytes, tell: Connection) -> None:
    """The process of a worker, which unpickles what another process has sent."""
    processes._run = lambda *_: pickle.loads(sent)
    processes.work(SimpleNamespace(worker=0, key=new_key(), board=None, log_format=None), tell)


def _cluster(keys: list[bytes]) -> list[Any]:
    context = multiprocessing.get_context("spawn")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in keys]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    pipes = [context.Pipe(duplex=False) for _ in keys]
    processes = [
        context.Process(target=_worker, args=(key, {"process_id": n, "addresses": addresses}, to), daemon=True)
        for n, (key, (_, to)) in enumerate(zip(keys, pipes, strict=True))
    ]
    for process in processes:
        process.start()
    for _, to in pipes:
        to.close()
    found = [_heard(out) for out, _ in pipes]
    for process in processes:
        process.join()
    return found


def _worker(key: bytes, cluster: dict[str, Any], to: Connection) -> None:
    seal = Seal(key)
    seal.put_on()
    to.send((ran(2, cluster)[2], len(seal.held)))


def _heard(out: Connection) -> Any:
    try:
        return out.recv()
    except EOFError:
        return "ended"
