"""The events that sessions of the online store are still made of, as bytes, and which of them are done with.

The pending blob of a view of sessions holds the instants of an entity's events, eight bytes each, in any order: nothing
else decides its sessions, and a session that seems over may still be merged with another by an event within lateness,
which no partial aggregate could take back. Whole sessions leave, once no event to come can touch them; what stays makes
the same sessions as before. `docs/formats.md` has the format.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forebay.core.codec import NO_CUT
from forebay.core.sessions import Rule, Sessions, sessionize
from forebay.errors import FormatError

Ints = npt.NDArray[np.int64]
INSTANT = np.dtype("<i8")


@dataclass(frozen=True)
class Unsettled:
    """Events of the entities 0 … n−1: whose, and when."""

    code: Ints
    ts: Ints

    def newest_of(self, entities: int) -> Ints:
        """The newest event of each entity; NO_CUT where it has none."""
        newest = np.full(entities, NO_CUT, np.int64)
        np.maximum.at(newest, self.code, self.ts)
        return newest

    def split(self, rule: Rule, horizons_us: Ints) -> tuple[Sessions, Unsettled]:
        """The sessions that no event at or after the horizon of their entity can touch, and the other events."""
        order = np.lexsort((self.ts, self.code))
        code, ts = self.code[order], self.ts[order]
        sessions = sessionize(rule, code, ts)
        done = sessions.end_us + rule.gap_us < horizons_us[sessions.code]
        stay = ~np.repeat(done, sessions.events)
        return sessions.take(done), Unsettled(code[stay], ts[stay])


def pack_instants(events: Unsettled, entities: int) -> list[bytes]:
    """The instants of each entity, in the order of their codes."""
    order = np.argsort(events.code, kind="stable")
    body = events.ts[order].astype(INSTANT).tobytes()
    edges = np.searchsorted(events.code[order], np.arange(entities + 1)) * INSTANT.itemsize
    return [body[a:b] for a, b in itertools.pairwise(edges.tolist())]


def unpack_instants(view: str, bodies: Sequence[bytes | None]) -> Unsettled:
    """The events of bodies, one per entity. Raises `FormatError`."""
    sizes = np.fromiter((len(body or b"") for body in bodies), np.int64, len(bodies))
    torn = sizes[sizes % INSTANT.itemsize > 0]
    if len(torn):
        raise FormatError(
            f"The pending events of view {view!r} have {int(torn[0])} bytes, which is no multiple of "
            f"{INSTANT.itemsize}; they were written for another definition. Rebuild the store."
        )
    ts = np.frombuffer(b"".join([body for body in bodies if body]), INSTANT).astype(np.int64)
    return Unsettled(np.repeat(np.arange(len(bodies), dtype=np.int64), sizes // INSTANT.itemsize), ts)
