"""A reader who types what a page says: one shell in a checkout of their own, from the first block to the last.

Nothing is replaced. The shell finds `forebay`, `dagster` and `python` on its PATH as in an activated `.venv`; the
checkout's folders are links to ours; whatever is started ends with the walk.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from forebay.online.embedded import stop_embedded
from forebay.settings import Settings
from tests.docs.pages import ROOT, Block, blocks, commands, matches, printed_by
from tests.infra.server import free_port

LINKED = ("forebay", "assets", "streaming", "serving", "dagster.yaml", "workspace.yaml")
PROGRAMS = {"python": (), "forebay": ("-m", "forebay.cli"), "dagster": ("-m", "dagster")}
HTTP_PORT = "6566"
END = "--end-of-command--"
PYTHON = f"""
import sys, traceback

names = {{"__name__": "__main__"}}
for path in map(str.strip, sys.stdin):
    code = 0
    try:
        exec(compile(open(path).read(), path, "exec"), names)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        code = 1
    print("\\n{END}", code, flush=True)
"""
"""One Python for all programs of a page, as in a notebook: what one names, the next knows."""
TIMEOUT_S = 120
"""The slowest command starts Dagster, which takes seconds; this is for a machine that is busy."""


class Walk:
    """One reader in one folder; as a context manager, what they started is over behind the block."""

    def __init__(self, folder: Path, replaced: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        port = str(free_port())
        self._replaced = {HTTP_PORT: port, **(replaced or {})}
        self._port = port
        self._programs = 0

    def __enter__(self) -> Self:
        programs = self.folder / ".bin"
        programs.mkdir()
        for name, arguments in PROGRAMS.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *arguments])} "$@"\n')
            program.chmod(0o755)
        for name in LINKED:
            (self.folder / name).symlink_to(ROOT / name)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}
        environment |= {"PATH": f"{programs}{os.pathsep}{environment['PATH']}", "FOREBAY_HTTP_PORT": self._port}
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._shell.communicate()
        homes = [folder for folder in self.folder.glob("*/online") if not folder.parent.is_symlink()]
        for online in homes:  # the package itself is linked here, and has a folder of that name
            stop_embedded(Settings(online.parent, "embedded", str(online.parent / "offline")))

    def through(self, page: Path) -> None:
        """Do all that a page says, and fail where something else happens than it says."""
        found = blocks(page)
        for block, following in zip(found, [*found[1:], None], strict=True):
            if block.file is not None:
                (self.folder / block.file).write_text(self._here(block.text))
            elif block.language == "python":
                self._program(block, printed_by(block, following))
            elif block.language == "console":
                for command in commands(block):
                    self._type(block, command.text, command.shown)
        doctests = "\n".join(block.text for block in found if block.language == "pycon")
        if doctests:
            (self.folder / "page.txt").write_text(doctests)
            self._type(found[0], "python -m doctest -o ELLIPSIS -o NORMALIZE_WHITESPACE page.txt", ())

    def _program(self, block: Block, shown: Sequence[str]) -> None:
        if not self._programs:
            (self.folder / "programs.py").write_text(PYTHON)
            self._type(block, "mkfifo .programs && { python programs.py < .programs & } && exec 9> .programs", ())
        self._programs += 1
        program = self.folder / f"program_{self._programs}.py"
        program.write_text(self._here(block.text))
        self._send(f"echo {program.name} >&9")
        self._judge(block, block.text, shown)

    def _type(self, block: Block, command: str, shown: Sequence[str]) -> None:
        """Run a command in the shell; one that ends in `&` goes on running behind what it is shown to print."""
        self._send(f"{self._here(command)}\nprintf '\\n%s %s\\n' {END} $?")
        self._judge(block, f"$ {command}", shown)

    def _judge(self, block: Block, command: str, shown: Sequence[str]) -> None:
        """Fail unless what runs ends with exit code 0, and prints what the page shows (if it does)."""
        *printed, end = self._read(lambda line: line.startswith(END))
        expected = [self._here(line) for line in shown]
        while command.endswith("&") and len("".join(printed)) < len("".join(expected)):
            printed += self._read(lambda line: bool(line.strip()))
        told = f"{block.place}: {command}\nprinted\n" + "\n".join(printed)
        if end != f"{END} 0":
            pytest.fail(f"{told}\nand ended with exit code {end.removeprefix(END)}", pytrace=False)
        if shown and not matches(expected, printed):
            pytest.fail(f"{told}\nand the page shows\n" + "\n".join(expected), pytrace=False)

    def _send(self, line: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{line}\n")
        self._shell.stdin.flush()

    def _read(self, is_last: Callable[[str], bool]) -> list[str]:
        """Lines up to the one that is the last, which is among them."""
        assert self._shell.stdout is not None
        lines: list[str] = []
        watch = threading.Timer(TIMEOUT_S, self._end)
        watch.start()
        try:
            while not lines or not is_last(lines[-1]):
                line = self._shell.stdout.readline()
                if not line:
                    pytest.fail(f"the shell ended, or a command took more than {TIMEOUT_S} s:\n{''.join(lines)}")
                lines.append(line)
        finally:
            watch.cancel()
        return [line.rstrip("\n") for line in lines]

    def _end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)

    def _here(self, text: str) -> str:
        """What a page says, with the ports and stores of this machine."""
        for said, meant in self._replaced.items():
            text = text.replace(said, meant)
        return text
