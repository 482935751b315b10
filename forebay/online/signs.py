"""Signs of life: what a running flow says of itself in the online store, for whoever asks how it is.

    <ns>:alive:<source>     a hash: flow/process, by their numbers ──▶ JSON, rewritten every few seconds

A flow that was replaced may write once more when another writes already, so each has fields of its own.
They are for people and alarms. Nothing that is computed depends on them: a flow that cannot write its sign goes on.
"""

from __future__ import annotations

from typing import Any

import msgspec
import redis

from forebay.online.connection import translated
from forebay.online.keys import Keys

KEPT_S = 30 * 86_400
"""How long the last sign of a flow that is gone is there to be read."""


class Sign(msgspec.Struct, frozen=True, omit_defaults=True):
    """One process of a flow: the number of its take-over, what it streams, when it began, was last seen at work and
    ended (instants in µs), and why it ended ("" in order).
    """

    flow: int
    began_us: int
    seen_us: int
    process: int = 0
    processes: int = 1
    workers: int = 1
    views: tuple[str, ...] = ()
    judges_by: str = ""
    """The digest of the definitions by which it judges what is an event of the source (`forebay.deploy.outdated`)."""
    losses: tuple[str, ...] = ()
    """What the online store had lost when it began."""
    metrics_port: int | None = None
    ended_us: int | None = None
    why: str = ""


class Signs:
    """The signs of the flows of a namespace."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client, self._keys = client, Keys(namespace)

    def write(self, source: str, sign: Sign) -> None:
        """Say that a process of a flow of this source is there. Raises `StoreUnavailableError`."""
        name, said = self._keys.alive(source), msgspec.json.encode(sign)
        with translated(self._client), self._client.pipeline(transaction=True) as pipe:
            pipe.hset(name, f"{sign.flow}/{sign.process}", said)
            pipe.expire(name, KEPT_S)
            pipe.execute()

    def forget_before(self, source: str, flow: int) -> None:
        """Remove the signs of flows that a flow has replaced. Raises `StoreUnavailableError`."""
        name = self._keys.alive(source)
        with translated(self._client):
            found: Any = self._client.hkeys(name)
            older = [field for field in found if int(field.partition(b"/")[0]) < flow]
            if older:
                self._client.hdel(name, *older)

    def read(self, source: str) -> list[Sign]:
        """The signs of the newest flow of a source, by process; none where there was no flow."""
        with translated(self._client):
            found: Any = self._client.hgetall(self._keys.alive(source))
        signs = [msgspec.json.decode(said, type=Sign) for said in found.values()]
        newest = max((sign.flow for sign in signs), default=0)
        return sorted((sign for sign in signs if sign.flow == newest), key=lambda sign: sign.process)
