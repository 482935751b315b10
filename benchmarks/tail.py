"""The least that makes an event readable: `python -m benchmarks.tail LOG SOCKET KEY` counts lines into one Redis key.

It looks for more as often as Forebay does, and writes once for all that it finds. It decodes nothing but what tells a
probe from other events, keeps no windows and no archive.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import redis

from streaming.sources import POLL_INTERVAL

PROBE = b'"user_id": "probe"'


def main(log: Path, socket: str, key: str) -> None:
    """Follow a log until killed."""
    client = redis.Redis(unix_socket_path=socket)
    with log.open("rb") as file:
        while True:
            found = file.read().count(PROBE)
            if found:
                client.incrby(key, found)
            else:
                time.sleep(POLL_INTERVAL.total_seconds())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
