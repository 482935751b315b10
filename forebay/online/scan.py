"""Looking through the online store for what it holds of a view, in steps so small that serving does not feel them.

    SCAN cursor MATCH <ns>:{??}:*:<view>@<v>:[spbr] COUNT 500      a few tenths of a millisecond of the server

The server looks at some keys at each step, whoever's they are, and answers those that match. Invariants: a key that is
there from the first step to the last is found; one may be found twice; the order is the server's own and says nothing.
On a cluster the primaries are looked through one after another; what is moved between them meanwhile may be missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import redis

from forebay.core.identity import SLOTS
from forebay.online.cluster import Cluster
from forebay.online.connection import translated
from forebay.online.keys import BATCH, PENDING, ROW, STREAM, Keys

STEP_KEYS = 500
"""Keys that the server looks at in one step."""
KINDS = (STREAM, PENDING, BATCH, ROW)


class Blob(NamedTuple):
    """One key of an entity of a view: its name, the text of the entity's key, and which kind it is."""

    name: str
    entity: str
    kind: str


def scan_view(client: redis.Redis, namespace: str, view: str) -> Iterator[list[Blob]]:
    """The keys of all entities of a view, step by step; a step may find none."""
    pattern = f"{namespace}:{{??}}:*:{view}:[{''.join(KINDS)}]"
    with translated(client):
        servers = client.primaries() if isinstance(client, Cluster) else [client]
    for server in servers:
        cursor = -1
        while cursor:
            with translated(server):
                answer: Any = server.scan(max(cursor, 0), match=pattern, count=STEP_KEYS)
            cursor, names = answer
            yield [Blob(text, *_parts(text)) for name in names if _parts(text := name.decode())[1]]


def some_entities(client: redis.Redis, namespace: str, view: str, most: int, steps: int) -> list[str]:
    """Entities of a view, as the server happens to have them: at most `most`, of at most `steps` steps."""
    found: dict[str, None] = {}
    for _, blobs in zip(range(steps), scan_view(client, namespace, view), strict=False):
        found.update(dict.fromkeys(blob.entity for blob in blobs))
        if len(found) >= most:
            break
    return list(found)[:most]


def held(client: redis.Redis, namespace: str, view: str, entities: Sequence[str]) -> list[bool]:
    """Whether the online store has anything of each entity."""
    keys = Keys(namespace)
    with translated(client), client.pipeline(transaction=False) as pipeline:
        for entity in entities:
            pipeline.exists(*(name(view, entity) for name in (keys.stream, keys.pending, keys.batch, keys.row)))
        return [bool(count) for count in pipeline.execute()] if entities else []


def slot_of_name(name: str) -> int:
    """The slot that the name of a blob says."""
    return int(name.split(":", 2)[1][1:-1])


def _parts(name: str) -> tuple[str, str]:
    """(entity, kind) of a name; no kind for a name that only looks like one of an entity."""
    parts = name.split(":")
    fits = len(parts) == 5 and parts[1][1:-1].isdigit() and int(parts[1][1:-1]) < SLOTS
    return (parts[2], parts[4]) if fits else ("", "")
