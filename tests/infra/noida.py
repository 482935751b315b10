"""A second Kafka broker of the tests' own: noida-db, started from its packaged binary.

Invariants: it listens on 127.0.0.1 only; stopped and started again it comes back on the same port with its topics.
Traps: killed, it loses what it acknowledged in its last seconds; it answers fetches at once even when asked to wait.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from shutil import rmtree
from typing import Self

from tests.infra.kafka import Broker
from tests.infra.server import Server, free_port


class Noida(Broker):
    """One broker over one folder; as a context manager it runs within the block."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="noida-"))
        self.port = self.listens_on = free_port()
        self.settings = {}
        self.server = self._start()

    def _start(self) -> Server:
        command = [str(_binary()), "start", "--only", "kafka", "--kafka-port", str(self.port)]
        server = Server([*command, "--data-dir", str(self._folder / "data")], folder=self._folder)
        server.await_ready(self._is_ready, timeout_s=20)
        return server

    def close(self) -> None:
        """End it and remove its data."""
        self.server.kill()
        rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _binary() -> Path:
    found = importlib.util.find_spec("noida_db")
    assert found is not None
    assert found.origin is not None
    binary = Path(found.origin).parent / "noida-db"
    binary.chmod(0o755)
    return binary
