"""What the tests of the stores may ask for beyond what every test may: fixtures only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import hiredis
import pytest
import redis

from forebay.online import long_blobs
from forebay.online import pending as pending_module
from forebay.online import shares as shares_module
from forebay.online.wire import Wire
from tests.infra.valkey import Valkey


@pytest.fixture
def client(valkey: Valkey) -> Iterator[redis.Redis]:
    """A plain client of the online store of all tests."""
    with valkey.connect() as connected:
        yield connected


class Killed(BaseException):
    """The process died here."""


def _nothing(number: int) -> None:
    """Go on."""


class Steps:
    """Every send of the bulk paths, numbered from 1, with something to do before and after each."""

    def __init__(self) -> None:
        self.count = 0
        self.before: Callable[[int], None] = _nothing
        self.after: Callable[[int], None] = _nothing

    def clear(self) -> None:
        """Count from 1 again, and do nothing at any step."""
        self.count, self.before, self.after = 0, _nothing, _nothing

    def kill(self, step: int, *, arrived: bool) -> None:
        """Die at a step from now, before or after what is sent has arrived, and stay dead."""

        def die_before(number: int) -> None:
            if number > step or (number == step and not arrived):
                raise Killed

        def die_after(number: int) -> None:
            if number == step:
                raise Killed

        self.clear()
        self.before, self.after = die_before, die_after


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """A look at the store, or a death, between any two sends; the sends themselves are the real ones."""
    watched = Steps()
    send, receive = Wire.send, Wire.receive

    def before(wire: Wire, commands: Iterable[bytes]) -> None:
        watched.count += 1
        watched.before(watched.count)
        send(wire, commands)

    def after(wire: Wire, count: int, expected: bytes | None = None) -> list[Any] | None:
        number = watched.count
        replies = receive(wire, count, expected)
        watched.after(number)
        return replies

    monkeypatch.setattr(Wire, "send", before)
    monkeypatch.setattr(Wire, "receive", after)
    return watched


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every commit rolls up, and so trims what it may."""
    monkeypatch.setattr(pending_module, "ROLL_BYTES", 1)
    monkeypatch.setattr(pending_module, "ROLL_RECORDS", 0)
    monkeypatch.setattr(long_blobs, "ROLL_ENTITIES_MIN", 1)


@pytest.fixture
def divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every commit that appends is a large one, and so a transaction for each lane."""
    monkeypatch.setattr(shares_module, "DIVIDED_MIN", 1)


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names that each transaction of the bulk paths sets, read from what is sent."""
    found: list[list[str]] = []
    send = Wire.send

    def watched(wire: Wire, commands: Iterable[bytes]) -> None:
        sent = list(commands)
        reader = hiredis.Reader()
        reader.feed(b"".join(sent))
        asked = list(iter(reader.gets, False))
        if asked[0] == [b"MULTI"]:
            found.append([name.decode() for command in asked for name in names_set(command)])
        send(wire, sent)

    monkeypatch.setattr(Wire, "send", watched)
    return found


def names_set(command: list[bytes]) -> list[bytes]:
    """The names that a command sets."""
    if command[0] == b"MSETEX":
        return command[2 : 2 + 2 * int(command[1]) : 2]
    return {b"SET": command[1:2], b"MSET": command[1::2]}.get(command[0], [])
