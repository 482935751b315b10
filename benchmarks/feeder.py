"""Appends a file's lines to a log (see `logs`) at a steady rate: `python -m benchmarks.feeder LINES LOG RATE`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.logs import appending

TICK_S = 0.002


def main(lines: Path, log: str, rate: float) -> None:
    """Append them all, each when it is due."""
    rows = lines.read_bytes().splitlines(keepends=True)
    began_s, sent = time.monotonic(), 0
    with appending(log) as append:
        while sent < len(rows):
            due = min(len(rows), int((time.monotonic() - began_s) * rate))
            if due > sent:
                append(rows[sent:due])
                sent = due
            time.sleep(TICK_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
