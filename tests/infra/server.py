"""One server process of a test: started on a free port, awaited, stopped or killed, and never left behind.

Lives here: what every server of the tests needs and no server's own words. A server dies with the process that started
it, even when that process is killed: a second process, the leash, waits for the end of its standard input, then
kills the server and removes its folder.
"""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path

POLL_INTERVAL_S = 0.01
STOP_TIMEOUT_S = 10.0
PORTS = range(20_000, 32_000)
"""Below those that Linux gives to clients (from 32,768 on), who would take a server's while it is down."""


def shuffled(ports: range) -> Iterator[int]:
    """These again and again, none twice before all were there; what runs beside this has another order."""
    return cycle(random.SystemRandom().sample(ports, k=len(ports)))


_SHUFFLED = shuffled(PORTS)


def free_port(among: Iterator[int] = _SHUFFLED) -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago, another one each time."""
    while True:
        port = next(among)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A running process with a folder for its data and its log; it is not ready before ``await_ready`` says so."""

    def __init__(self, command: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = folder / "log"
        with self._log.open("ab") as sink:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, env=environment
            )
        watch = 'read -r _; kill -9 "$1"; rm -rf "$2"'
        leash = ["sh", "-c", watch, "leash", str(self.pid), str(folder)]
        self._leash = subprocess.Popen(leash, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def await_ready(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Return once ``is_ready`` holds; if the server ends first or takes too long, raise with the end of its log."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if not self.running or time.monotonic() > deadline:
                why = "ended" if not self.running else f"was not ready after {timeout_s} s"
                self.kill()
                tail = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"The server {self._process.args!r} {why}. The end of its log:\n{tail}")
            time.sleep(POLL_INTERVAL_S)

    def stop(self) -> None:
        """End it as an operator would (SIGTERM), and by force when it doesn't listen."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL), and its leash with it."""
        self._process.kill()
        self._process.wait()
        self._leash.kill()
        self._leash.communicate()
