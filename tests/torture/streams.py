"""Who writes the Redis Streams: entries of many lines, and what each line is.

Lives here: a thread that appends. It names its entries itself, so that one whose acknowledgement was lost is told from
one that never arrived: a name can be taken once. So what was appended is known, also when the streams are trimmed.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import redis

from forebay.ingest.batch import MALFORMED
from streaming.entries import CHUNKED
from tests.simulation.shop import Customers, Line, Log
from tests.torture.ground import STREAM, STREAMS, Ground
from tests.torture.producer import BUYERS, SHOPS

TURN_S = 0.4
LINES_MAX = 24
"""Of an entry; with its mean and the turn, some 30 lines a second."""
AGAIN_S = 0.1
WITHOUT = 0.01
"""How often an entry lacks its lines."""
TAKEN = "equal or smaller"


class Tills(threading.Thread):
    """Appends until it is told to stop. `acknowledged` is, by partition, the offset behind the newest entry."""

    def __init__(self, ground: Ground, seed: int) -> None:
        super().__init__(name="tills", daemon=True)
        self._chance, self._enough = random.Random(f"{seed}: tills"), threading.Event()
        self._customers = Customers(self._chance, BUYERS, SHOPS)
        self._client: redis.Redis = redis.Redis.from_url(ground.streams.url)
        self._partitions = ground.partitions[ground.tills.source.name]
        self._last_ms = 0
        self.log = Log(ground.tills.source.dedupe is not None, {name: {} for name in self._partitions})
        self.acknowledged: dict[str, int] = dict.fromkeys(self._partitions, 0)
        self.entries = 0

    def run(self) -> None:
        """An entry each turn."""
        while not self._enough.wait(TURN_S):
            self._append(self._chance.randrange(STREAMS))

    def stop(self) -> None:
        """Append no more."""
        self._enough.set()
        self.join()

    def trimmed(self) -> int:
        """Entries that are gone."""
        left: list[Any] = [self._client.xlen(f"{STREAM}:{n}") for n in range(STREAMS)]
        return self.entries - sum(left)

    def _append(self, number: int) -> None:
        now_us = time.time_ns() // 1000
        if self._chance.random() < WITHOUT:
            lines, fields = [Line(b"", None, now_us, MALFORMED)], {"note": b"no lines"}
        else:
            lines = [self._customers.line(now_us) for _ in range(self._chance.randint(1, LINES_MAX))]
            fields = {"events": b"\n".join(line.raw for line in lines)}
        self._last_ms = max(self._last_ms + 1, now_us // 1000)
        entry = f"{self._last_ms}-0"
        partition, first = self._partitions[number], CHUNKED.offset(entry.encode())
        self.log.lines[partition] |= {first + n: line for n, line in enumerate(lines)}
        self._send(f"{STREAM}:{number}", entry, fields)
        self.entries += 1
        self.acknowledged[partition] = CHUNKED.end(entry.encode())

    def _send(self, stream: str, entry: str, fields: dict[Any, Any]) -> None:
        """Append an entry once, however often its server dies meanwhile."""
        while True:
            try:
                self._client.xadd(stream, fields, id=entry)
                return
            except redis.ResponseError as error:
                if TAKEN in str(error):
                    return
                raise
            except (redis.ConnectionError, redis.TimeoutError):  # one that loads its data, too
                self._enough.wait(AGAIN_S)
