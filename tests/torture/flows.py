"""The flow as a process, or as several: started as an operator starts it, hit by signals, and heard out at its end.

Lives here: processes and what they said. A flow is a group of processes of its own; it dies with whoever started it.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.02
CHECKOUT = Path(__file__).parents[2]
END_S = 300.0
"""Four processes that begin on a machine with other work have been seen to take two minutes."""
CLEARING_UP = "resource_tracker"
UNDERSTOOD = re.compile(
    r"^(warning: (the online store had lost writes: |waiting up to ).*"
    r"|error: .*(took over|lost its data|lost writes|Cannot reach|cannot be reached|does not answer|"
    r"still loading|does not serve a slot|was killed by signal 9).*)?$"
)
"""What a flow may say on stderr while things are hit."""


def await_that(condition: Callable[[], bool], what: str, timeout_s: float = END_S) -> None:
    """Return once a condition holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"after {timeout_s:.0f} s still not so: {what}"
        time.sleep(POLL_S)


@dataclass(frozen=True)
class Ended:
    """How a flow ended: the code of its first process, and what it said."""

    code: int
    said: str
    errors: str

    @property
    def was_fenced(self) -> bool:
        """Whether it stopped because another one took over."""
        return self.code == 2 and "took over" in self.errors


class Flow:
    """One flow. `workers` is what it was started with."""

    def __init__(self, folder: Path, environment: Mapping[str, str], workers: int, *arguments: str) -> None:
        self.workers, self._folder = workers, folder
        folder.mkdir()
        command = [sys.executable, "-m", "streaming", "--json", "--workers", str(workers), *arguments]
        with (folder / "said").open("wb") as said, (folder / "errors").open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env={**environment, "PYTHONFAULTHANDLER": "1"},
                stdout=said,
                stderr=errors,
                start_new_session=True,
            )
        leash = ["sh", "-c", 'read -r _; kill -9 -- "-$1"', "leash", str(self.pid)]
        self._leash = subprocess.Popen(leash, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        """Its first process, and its group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its first process is there."""
        return self._process.poll() is None

    def members(self) -> list[int]:
        """All of its processes that work; Python's own, which clears up behind them, does not."""
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,pgid=,stat=,args="], check=True, capture_output=True, text=True
        )
        rows = [line.split(maxsplit=3) for line in listed.stdout.splitlines()]
        mine = [row for row in rows if int(row[1]) == self.pid and not row[2].startswith("Z")]
        return sorted(int(row[0]) for row in mine if CLEARING_UP not in row[-1])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM to its first process, as an operator does."""
        self._process.terminate()

    def kill(self, chance: random.Random) -> str:
        """Kill all of it, or one of its processes, whose death the others have to notice; what was killed."""
        members = self.members()
        one = chance.choice(members) if len(members) > 1 and chance.random() < 0.6 else None
        if one is None:
            self.signal(signal.SIGKILL)
            return "all"
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
        return "its first process" if one == self.pid else "one of its processes"

    def await_end(self, timeout_s: float = END_S) -> Ended:
        """How it ended, once all of its processes have."""
        await_that(lambda: not self.running and not self.members(), f"flow {self.pid} ends", timeout_s)
        return self.heard()

    def heard(self) -> Ended:
        """What it said until now, and its code."""
        said, errors = ((self._folder / name).read_text(errors="replace") for name in ("said", "errors"))
        self._let_go()
        ended = Ended(self._process.returncode, said, errors)
        not_understood = [line for line in errors.splitlines() if not UNDERSTOOD.match(line)]
        assert not not_understood, f"a flow of {self.workers} workers ended with {ended.code} and said:\n{errors}"
        return ended

    def stacks(self) -> str:
        """End it; what it said, and where each of its threads was."""
        self.signal(signal.SIGABRT)
        self._process.wait()
        return (self._folder / "errors").read_text(errors="replace")

    def close(self) -> None:
        """Leave nothing behind."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._let_go()

    def _let_go(self) -> None:
        self._leash.kill()
        self._leash.communicate()
