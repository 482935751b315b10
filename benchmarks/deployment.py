"""A Forebay of the benchmark's own: a home in a temporary folder, its embedded Valkey, what is applied to it.

Lives here: starting and ending it. Invariants: nothing of the machine's own deployment is read or written, and nothing
is left behind. Valkey keeps its append-only file, as a user's does, but does not rewrite it in the middle of a
measurement.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from forebay.client.feature_store import FeatureStore
from forebay.deploy.registry import Registry
from forebay.language.definitions import Definitions
from forebay.online.connection import connect_online
from forebay.online.embedded import stop_embedded
from forebay.settings import Settings

CHECKOUT = Path(__file__).parents[1]
ONLY_MINE = ("FOREBAY_", "AWS_", "BYTEWAX_")


@dataclass(frozen=True)
class Deployment:
    """A deployment that runs."""

    settings: Settings
    redis: redis.Redis
    definitions: Definitions

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process of this deployment is told. Where Python may not keep what it has compiled, it may in here."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ONLY_MINE)}
        mine = {"FOREBAY_HOME": str(self.settings.home)}
        if inherited.pop("PYTHONDONTWRITEBYTECODE", None):
            mine["PYTHONPYCACHEPREFIX"] = str(self.settings.home / "compiled")
        return inherited | mine

    def store(self) -> FeatureStore:
        """The client."""
        return FeatureStore(self.settings)

    def redis_cpu_s(self) -> float:
        """CPU seconds that the server has used."""
        used = self.redis.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


@contextmanager
def deployed(definitions: Definitions) -> Iterator[Deployment]:
    """A deployment of these definitions that is gone after the block."""
    home = Path(tempfile.mkdtemp(prefix="forebay-bench-"))
    settings = Settings.from_env({"FOREBAY_HOME": str(home)})
    try:
        client = connect_online(settings)
        client.config_set("auto-aof-rewrite-percentage", 0)
        Registry.open(settings, client).apply(definitions)
        yield Deployment(settings, client, definitions)
        client.close()
    finally:
        stop_embedded(settings)
        shutil.rmtree(home, ignore_errors=True)
