"""Offsets that were refused by the clock and passed online, until the archive has passed them too.

Whether an event is dated too far ahead depends on when it is judged. The first store that passes an offset settles it
for all: a lane puts the offsets that it passed over into a set, in the same transaction as its progress, so whoever
reads the log again after a crash finds them. Once the archive is past an offset nobody judges it again, and it goes.

    <ns>:{17}:refused:<source>     a set of `<partition>/<offset>`; 17 is the first slot of the lane
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

import redis

from forebay.core.identity import SLOTS
from forebay.online.connection import translated
from forebay.online.keys import Keys
from forebay.online.wire import pack


def refuse_command(keys: Keys, slot: int, source: str, partition: str, offsets: Collection[int]) -> bytes:
    """The command that a lane adds to its transaction."""
    return pack(("SADD", keys.refused(slot, source), *(f"{partition}/{offset}" for offset in offsets)))


class Refusals:
    """The refused offsets of the sources of a namespace."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client, self._keys = client, Keys(namespace)

    def read(self, source: str) -> dict[str, set[int]]:
        """The offsets of each partition."""
        found: dict[str, set[int]] = defaultdict(set)
        with translated(self._client), self._client.pipeline(transaction=False) as pipe:
            for slot in range(SLOTS):
                pipe.smembers(self._keys.refused(slot, source))
            sets: list[Any] = pipe.execute()
        for name in set().union(*sets):
            partition, _, offset = name.decode().rpartition("/")
            found[partition].add(int(offset))
        return dict(found)

    def forget(self, source: str, is_past: Callable[[str, int], bool]) -> None:
        """Drop those of which the archive is past; it may be repeated, and left out."""
        known = self.read(source)
        past = [f"{name}/{n}" for name, offsets in known.items() for n in offsets if is_past(name, n)]
        if past:
            with translated(self._client), self._client.pipeline(transaction=False) as pipe:
                for slot in range(SLOTS):
                    pipe.srem(self._keys.refused(slot, source), *past)
                pipe.execute()
