"""A flow that has nothing to write finds out all the same that another took its place, and ends.

A lane finds out when it commits (`forebay.online.fence`); one to which no event comes never does. Lives here: looking
at the tokens by which the flow is the writer. Invariants: it decides nothing that the fence does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import redis

from forebay.errors import FencedError
from forebay.online.connection import address, translated
from streaming.begun import Begun
from streaming.stop import Stop
from streaming.turns import taken_every

LOOK_INTERVAL_S = 5.0
"""A look is an MGET of 64 tokens for each source."""


@contextlib.contextmanager
def replacement_watched(begun: Begun, online: redis.Redis, stop: Stop) -> Iterator[None]:
    """Within the block the flow fails where a slot has not its token any more."""
    names, tokens = [*begun.fences], [*begun.fences.values()]
    sources = ", ".join(source.name for source in begun.task.sources)

    def look() -> None:
        with translated(online):
            found: Any = online.mget(names)
        others = [token for token, mine in zip(found, tokens, strict=True) if token != mine]
        if any(others):
            why = f"Another flow took over {sources}. This one must stop; what it had not written, that one reads."
            stop.fail(FencedError(why))
        elif others:
            why = f"Redis at {address(online)} has lost its data: the tokens of the flow of {sources} are gone."
            stop.fail(FencedError(f"{why} Start again: the stream rewinds."))

    if not names:
        yield
        return
    with taken_every(LOOK_INTERVAL_S, "tokens", look):
        yield
