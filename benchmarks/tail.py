"""The least that makes an event readable: `python -m benchmarks.tail LOG SOCKET KEY` counts lines into one Redis key.

It looks for more as often as Forebay does, and writes once for all that it finds. It decodes nothing but what tells a
probe from other events, keeps no windows and no archive.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from benchmarks.logs import consumer_of, where
from streaming.chunk import EVENTS_MAX
from streaming.sources import POLL_INTERVAL

PROBE = b'"user_id": "probe"'


def main(log: str, socket: str, key: str) -> None:
    """Follow a log until killed."""
    client = redis.Redis(unix_socket_path=socket)
    with _reading(log) as read:
        while True:
            found = read().count(PROBE)
            if found:
                client.incrby(key, found)
            else:
                time.sleep(POLL_INTERVAL.total_seconds())


@contextmanager
def _reading(log: str) -> Iterator[Callable[[], bytes]]:
    """What has come since it was read last."""
    if where(log) is None:
        with Path(log).open("rb") as file:
            yield file.read
    else:
        consumer = consumer_of(log)
        yield lambda: b"".join(message.value() or b"" for message in consumer.consume(EVENTS_MAX, 0))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
