"""The user's commands, run as a user runs them: each in its own process, with its output in a log.

Lives here: starting processes and saying clearly what failed. What is run, and why, is told in ``demo/run.py``.

Invariants: a command that fails stops the demo with the command, the end of its output and the path of its log;
commands started together are all waited for, also when one fails.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forebay.errors import ForebayError

CHECKOUT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 600
"""No single command of the demo takes minutes; one that does is stuck."""
LINES_SHOWN = 40


class CommandFailedError(ForebayError):
    """A command of the demo ended with an error."""


@dataclass(frozen=True, slots=True)
class Command:
    """What the user types, and how this checkout runs it."""

    shown: str
    argv: tuple[str, ...]


def forebay(*arguments: str) -> Command:
    """`forebay …`"""
    return Command(shlex.join(("forebay", *arguments)), (sys.executable, "-m", "forebay.cli", *arguments))


def materialize(select: Sequence[str], partition_range: str = "") -> Command:
    """`dagster asset materialize …` of the selected assets, over a range of partitions if one is given."""
    arguments = ["asset", "materialize", "-m", "assets.definitions", "--select", ",".join(select)]
    if partition_range:
        arguments += ["--partition-range", partition_range]
    return Command(shlex.join(("dagster", *arguments)), (sys.executable, "-m", "dagster", *arguments))


@dataclass(slots=True)
class Shell:
    """Runs commands for one FOREBAY_HOME, with Dagster's home in it as `make ui` expects it."""

    home: Path
    logs: Path
    columns: int = 120
    count: int = 0
    history: list[str] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """The user's environment, with the home of this demo."""
        path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
        homes = {"FOREBAY_HOME": str(self.home), "DAGSTER_HOME": str(self.home / "dagster")}
        return os.environ | homes | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": str(self.columns)}

    def _start(self, command: Command) -> tuple[subprocess.Popen[bytes], Path]:
        self.count += 1
        self.history.append(command.shown)
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{self.count:02d}-{'-'.join(command.shown.split()[:2])}.log"
        with log.open("wb") as output:
            output.write(f"$ {command.shown}\n".encode())
            output.flush()
            process = subprocess.Popen(
                command.argv,
                cwd=CHECKOUT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return process, log

    def run(self, *commands: Command) -> list[str]:
        """Run the commands side by side; returns their outputs. Raises `CommandFailedError` if one fails."""
        running = [(command, *self._start(command)) for command in commands]
        deadline = time.monotonic() + TIMEOUT_S
        codes = [_wait(process, deadline) for _, process, _ in running]
        for (command, _, log), code in zip(running, codes, strict=True):
            if code != 0:
                raise CommandFailedError(_failure(command, code, log))
        return [log.read_text(errors="replace").split("\n", 1)[1] for _, _, log in running]


def _wait(process: subprocess.Popen[bytes], deadline: float) -> int:
    """The exit code, or -9 for a process that was still running at the deadline and had to be killed."""
    try:
        return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return -9


def _failure(command: Command, code: int, log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[1:]
    reason = f"did not end within {TIMEOUT_S} s" if code == -9 else f"ended with exit code {code}"
    shown = "\n".join(f"    {line}" for line in lines[-LINES_SHOWN:])
    return f"The command\n    {command.shown}\n{reason}. The end of its output:\n{shown}\nThe whole of it is in {log}."
