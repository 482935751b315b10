"""What travels between workers is unpickled only if one of them sealed it."""

from __future__ import annotations

import multiprocessing
import pickle
import socket
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import StoreError
from streaming.seal import SEAL_BYTES, Seal, new_key
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


def test_bytewax_seals_and_opens_what_it_sends() -> None:
    """With one key two workers understand each other; with two, neither unpickles what comes, and both end."""
    both = _cluster([b"k" * 32, b"k" * 32])
    assert [[len(items) for items in one.values()] for one in both] == [[100, 100], [100, 100]]
    assert _cluster([b"k" * 32, b"j" * 32]) == ["ended", "ended"]


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
    Seal(key).put_on()
    to.send(ran(2, cluster)[2])


def _heard(out: Connection) -> Any:
    try:
        return out.recv()
    except EOFError:
        return "ended"
