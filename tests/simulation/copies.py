"""Copies of the online store, and of what the model knew of it when they were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from forebay.online.cluster import Cluster
from tests.simulation.expected import Memory


@dataclass
class Copy:
    """A copy of the online store, and of what the model knew of it."""

    dump: dict[bytes, bytes]
    memory: Memory

    @classmethod
    def of(cls, online: redis.Redis, namespace: str, memory: Memory) -> Copy:
        """What is there now."""
        names = _names(online, namespace)
        pipe = online.pipeline(transaction=False)
        for name in names:
            pipe.dump(name)
        return cls(dict(zip(names, pipe.execute(), strict=True)) if names else {}, memory.copy())

    def restore(self, online: redis.Redis, namespace: str) -> None:
        """In place of all that is there, at once."""
        pipe = online.pipeline(transaction=not isinstance(online, Cluster))
        for name in _names(online, namespace):
            pipe.delete(name)
        for name, body in self.dump.items():
            pipe.restore(name, 0, body)
        pipe.execute()


NOTHING = Copy({}, Memory())


def _names(online: redis.Redis, namespace: str) -> Sequence[Any]:
    return list(online.scan_iter(f"{namespace}:*", count=1000))
