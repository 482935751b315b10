"""Offsets that were refused and passed online, until the archive has passed them too.

Whether something is an event depends on when it is judged, because it may be dated too far ahead, and by which
definitions. The first store that passes an offset settles it for all: a lane puts the offsets that it passed over into
a set, in the same transaction as its progress, so whoever reads the log again after a crash finds them. Once the
archive is past an offset nobody judges it again, and it goes. What can be read by nobody is not named.

    <ns>:{17}:refused:<source>     a set of `<partition>/<offset>:<reason>`; 17: the first slot of a transaction
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import redis

from forebay.core.identity import SLOTS
from forebay.ingest.batch import FUTURE
from forebay.online.connection import translated
from forebay.online.keys import Keys
from forebay.online.wire import pack

FORGOTTEN_AT_ONCE = 1_000
"""Members that one command removes: Redis does nothing else meanwhile."""


def refuse_command(keys: Keys, slot: int, source: str, partition: str, refused: Mapping[int, str]) -> bytes:
    """The command that a lane adds to its transaction: offsets, by their reasons."""
    names = (f"{partition}/{offset}:{reason}" for offset, reason in refused.items())
    return pack(("SADD", keys.refused(slot, source), *names))


class Refusals:
    """The refused offsets of the sources of a namespace."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client, self._keys = client, Keys(namespace)

    def read(self, source: str) -> dict[str, dict[int, str]]:
        """The offsets of each partition, and why they were refused."""
        found: dict[str, dict[int, str]] = defaultdict(dict)
        for name in set().union(*self._sets(source)):
            partition, offset, reason = _refused(name)
            found[partition][offset] = reason
        return dict(found)

    def forget(self, source: str, is_past: Callable[[str, int], bool]) -> None:
        """Drop those of which the archive is past, from the sets that hold them; it may be repeated, and left out."""
        sets = self._sets(source)
        with translated(self._client), self._client.pipeline(transaction=False) as pipe:
            for slot, names in enumerate(sets):
                past = [name for name in names if is_past(*_refused(name)[:2])]
                for first in range(0, len(past), FORGOTTEN_AT_ONCE):
                    pipe.srem(self._keys.refused(slot, source), *past[first : first + FORGOTTEN_AT_ONCE])
            pipe.execute()

    def _sets(self, source: str) -> list[set[bytes]]:
        """What the set of each slot holds."""
        with translated(self._client), self._client.pipeline(transaction=False) as pipe:
            for slot in range(SLOTS):
                pipe.smembers(self._keys.refused(slot, source))
            sets: list[set[bytes]] = pipe.execute()
        return sets


def _refused(name: bytes) -> tuple[str, int, str]:
    """The partition, the offset and the reason that a member of a set names; one without a reason is of before."""
    partition, _, place = name.decode().rpartition("/")
    offset, _, reason = place.partition(":")
    return partition, int(offset), reason or FUTURE
