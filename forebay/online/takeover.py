"""Taking over: one instant at which a flow becomes the only writer of the slots of all its lanes.

    WATCH fence …   MULTI   MSET fence token … streams views …   INCRBY <ns>:flows 1   EXEC

All slots change hands in one transaction, so of two flows that start at the same moment one has them all. What it
replaces is watched, so one that the network delivers late takes nothing from who came since (docs/adr/0250). Each
take-over has a number, greater than any before it; the tables of the offline store are taken by that number
(`LakeTable.take`), so the same flow wins in both stores. A Redis that lost its count is told what the tables have seen.

On a cluster no transaction holds all slots. There the number comes first, and each slot is taken under it, together
with the views, where none has a greater one (`forebay.online.shares`): so of two flows the later one has them all, too.
Until all are taken its predecessor may write in those that it still has; positions are read after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import redis

from forebay.core.identity import SLOTS
from forebay.errors import StoreUnavailableError
from forebay.online.cluster import Cluster
from forebay.online.connection import address, translated
from forebay.online.keys import Keys
from forebay.online.lane import Lane


def take_over(client: redis.Redis, namespace: str, lanes: Sequence[Lane], seen: int) -> int:
    """Become the writer of all slots of some lanes, whoever was it; the number of this take-over, greater than `seen`.

    It may be repeated after `StoreUnavailableError`. Raises `FencedError` on a cluster where a later flow takes them.
    """
    if isinstance(client, Cluster):
        return _take_apart(client, Keys(namespace), lanes, seen)
    number, step = 0, 1
    while number <= seen:
        number = _take(client, Keys(namespace), lanes, step)
        step = max(1, seen - number + 1)
    for lane in lanes:
        lane.begin()
    return number


def beside(client: redis.Redis, namespace: str, source: str) -> tuple[dict[str, bytes | None], list[str]]:
    """The tokens of the flow that has the slots of a source, and the views that it streams, as of one instant.

    On a cluster as of one instant for each slot: the views are those of any flow that has one.
    """
    keys = Keys(namespace)
    fences = [keys.fence(slot, source) for slot in range(SLOTS)]
    apart = isinstance(client, Cluster)
    streams = [keys.slot_streams(slot, source) for slot in range(SLOTS)] if apart else [keys.streams(source)]
    with translated(client):
        found: Any = client.mget([*fences, *streams])
    views = {view for told in found[SLOTS:] if told for view in msgspec.json.decode(told, type=list[str])}
    return dict(zip(fences, found, strict=False)), sorted(views)


def _take_apart(client: Cluster, keys: Keys, lanes: Sequence[Lane], seen: int) -> int:
    seen = max([seen, *(lane.newest() for lane in lanes)])
    number, step = 0, 1
    while number <= seen:
        with translated(client):
            number = int(client.incrby(keys.flows(), step))
        step = max(1, seen - number + 1)
    for lane in lanes:
        lane.take_as(number)
    for lane in lanes:
        lane.begin()
    return number


def _take(client: redis.Redis, keys: Keys, lanes: Sequence[Lane], step: int) -> int:
    tokens: Any = {name: token for lane in lanes for name, token in lane.tokens.items()}
    tokens |= {
        keys.streams(source): msgspec.json.encode(views) for lane in lanes for source, views in lane.streams.items()
    }
    with translated(client), client.pipeline(transaction=True) as transaction:
        try:
            if tokens:
                transaction.watch(*tokens)  # type: ignore[no-untyped-call]  # as redis-py has it
                transaction.multi()
                transaction.mset(tokens)
            transaction.incrby(keys.flows(), step)
            return int(transaction.execute()[-1])
        except redis.WatchError:
            raise StoreUnavailableError(
                f"Another flow took over at the same moment, or Redis at {address(client)} did not answer. Try again."
            ) from None
