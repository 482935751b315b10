"""What every test may ask for: real servers, a home of its own, names of its own.

Lives here: fixtures only; the servers themselves are nouns in tests/infra/. Invariants: a test sees no setting of the
machine it runs on and leaves nothing behind; a server starts when the first test asks for it; two tests never share a
key, a folder or a prefix.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import hypothesis
import pytest

from forebay.online.bulk import Throttle
from forebay.online.embedded import stop_embedded
from forebay.settings import Settings
from tests.infra.seaweedfs import SeaweedFs
from tests.infra.valkey import Valkey
from tests.infra.valkey_cluster import ValkeyCluster
from tests.reads import counted

# Deadlines measure the machine. On CI the examples are the same in every run, so that a red run can be repeated.
hypothesis.settings.register_profile("local", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

SETTINGS_OF_THE_MACHINE = ("FOREBAY_", "AWS_", "DAGSTER_", "BYTEWAX_")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This test's FOREBAY_HOME, in an environment without the machine's settings.

    Its path is short, unlike pytest's own folders: a unix socket's path holds some hundred bytes.
    """
    for name in list(os.environ):
        if name.startswith(SETTINGS_OF_THE_MACHINE):
            monkeypatch.delenv(name)
    folder = Path(tempfile.mkdtemp(prefix="forebay-"))
    monkeypatch.setenv("FOREBAY_HOME", str(folder))
    yield folder
    stop_embedded(Settings.from_env({"FOREBAY_HOME": str(folder)}))  # it would outlive its folder
    rmtree(folder, ignore_errors=True)


@pytest.fixture
def namespace() -> str:
    """A FOREBAY_NAMESPACE that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that publications were to wait for their rate, one wait after another: none of them is waited."""
    asked: list[float] = []
    monkeypatch.setattr(Throttle.__init__, "__defaults__", (lambda: sum(asked), asked.append))  # its clock and sleep
    return asked


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One server in memory for all tests: stay within your namespace, and don't kill it."""
    with Valkey() as server:
        yield server


@pytest.fixture
def online_url(valkey: Valkey) -> str:
    """Where the online store of all tests listens."""
    return valkey.url


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[ValkeyCluster]:
    """Three primaries in memory for all tests: stay within your namespace, and kill none of them."""
    with ValkeyCluster() as cluster:
        yield cluster


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A server of this test alone, which keeps each write through a kill and a restart."""
    with Valkey(durable=True) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFs]:
    """One S3 server for all tests: stay within your prefix."""
    with SeaweedFs() as server:
        yield server


@pytest.fixture
def own_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[SeaweedFs]:
    """An S3 server of this test alone, which it may take away, with the AWS_* variables set."""
    with SeaweedFs() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def s3_url(seaweedfs: SeaweedFs, namespace: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of this test's own on S3, with the AWS_* variables set as a user sets them."""
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    return f"{seaweedfs.url}/{namespace}"


@pytest.fixture(params=["folder", "s3"])
def offline_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An offline store of this test's own: the test runs on a folder and on S3."""
    return str(tmp_path / "offline") if request.param == "folder" else str(request.getfixturevalue("s3_url"))


@pytest.fixture
def place(request: pytest.FixtureRequest, home: Path) -> str:
    """Where the offline store of this test's world is: a folder, unless it is run `everywhere` (`tests.places`)."""
    on_s3 = getattr(request, "param", "folder") == "s3"
    return str(request.getfixturevalue("s3_url")) if on_s3 else str(home / "offline")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The bytes that are read of each file of the offline store's tables."""
    return counted(monkeypatch)


@dataclass(frozen=True)
class Deployment:
    """Where this test's stores are; the environment says the same to this process and to those that it starts."""

    home: Path
    online_url: str
    offline_url: str
    namespace: str


@pytest.fixture
def deployment(
    home: Path, online_url: str, offline_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> Deployment:
    """A whole Forebay of this test's own, on a folder and on S3, set in the environment."""
    monkeypatch.setenv("FOREBAY_ONLINE_URL", online_url)
    monkeypatch.setenv("FOREBAY_OFFLINE_URL", offline_url)
    monkeypatch.setenv("FOREBAY_NAMESPACE", namespace)
    return Deployment(home, online_url, offline_url, namespace)
