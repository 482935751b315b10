"""Feast as a contender, where a Python has it: which Python, and what a call of `by_feast.py` used.

Feast wants other versions of what Forebay has, so it is installed apart; `FOREBAY_FEAST_PYTHON` says where. Without it
nobody misses it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from benchmarks.rounds import Measured

PYTHON = "FOREBAY_FEAST_PYTHON"
SCRIPT = Path(__file__).parent / "by_feast.py"


def feast_python() -> str | None:
    """The Python that has Feast, if one was named."""
    return os.environ.get(PYTHON)


def run_feast(python: str, *arguments: str) -> Measured:
    """One call. Raises `RuntimeError`."""
    quiet = {"FEAST_USAGE": "False", "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run([python, str(SCRIPT), *arguments], capture_output=True, text=True, env=quiet)
    if done.returncode:
        raise RuntimeError(f"by_feast.py {' '.join(arguments)} failed: {done.stderr[-2000:]}")
    used: Measured = json.loads(done.stdout.splitlines()[-1])
    return used


@contextmanager
def address_of(client: redis.Redis, port: int) -> Iterator[str]:
    """Where Feast finds a server that so far listens on a socket file only: `host:port`, until the end of the block."""
    client.config_set("bind", "127.0.0.1")
    client.config_set("port", port)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        client.config_set("port", 0)
