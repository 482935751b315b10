"""Sessions: a source that is derived from another one's events.

    events      •  • •     •                 •  •
    sessions    [────────────] + gap         [──] + gap
    ts                          ^                   ^      the instant at which the session is known to be over

A session is a run of events of one entity. By their instants, the next event belongs to it iff it is at most `gap`
after the one before it and at most `longest` after the first; otherwise it begins a session. So which sessions there
are is a function of the set of events, and a session depends on no event after its `ts`: what is known of it at `ts`
never changes, but for events that come late. `ts` is `end + gap`; an entity never has two sessions with the same one.

Lives here: the declaration and the columns of a session. The rule itself is in `forebay.core.sessions`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from forebay.errors import DefinitionError
from forebay.instants import DAY_US, duration_text
from forebay.language.durations import required_us
from forebay.language.names import check_name
from forebay.language.source import EVENT_ID, EventSource
from forebay.language.types import AnyType, Decimal, Int64, String, Timestamp

SESSION_START, SESSION_END, DURATION, EVENTS = "session_start", "session_end", "duration", "events"
OVER = "ts"
"""The column with the instant of a session: its end and the gap."""
SESSION_ID_BYTES = 16
"""A session is identified by the instant at which it starts, in hexadecimal."""
GAP_MAX_US = DAY_US
"""Events are held back online for so long."""
LONGEST_MAX_US = 31 * DAY_US

SESSION_SCHEMA: dict[str, AnyType] = {
    EVENT_ID: String(max_bytes=SESSION_ID_BYTES),
    OVER: Timestamp,
    SESSION_START: Timestamp,
    SESSION_END: Timestamp,
    DURATION: Decimal(6),
    EVENTS: Int64,
}


class Sessionize(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The sessions in the events of a source: the events of a `WindowedView`, of whose entity they are.

    Two consecutive events of an entity that are at most `gap` apart belong to one session, as long as it is not longer
    than `longest`; a longer run is cut there, and the rest begins a new session. A session has the columns
    `session_start` and `session_end` (of its first and last event), `duration` (seconds, `Decimal(6)`), `events` (how
    many) and `ts`, its end and the gap: from then on it counts. `name` is `<source>_sessions`, if it is not said.
    """

    source: EventSource
    gap: str
    longest: str
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.source, EventSource):
            raise DefinitionError(f"Sessionize: {explain_source(self.source)}")
        if not self.name:
            msgspec.structs.force_setattr(self, "name", f"{self.source.name}_sessions")
        check_name("Sessionize", self.name)
        where = f"Sessionize {self.name!r}"
        for what, us, most_us in (("gap", self.gap_us, GAP_MAX_US), ("longest", self.longest_us, LONGEST_MAX_US)):
            if us > most_us:
                raise DefinitionError(
                    f"{where}: {what}={getattr(self, what)!r} is longer than {duration_text(most_us)}; "
                    "events of sessions that are not over are held online"
                )
        if self.longest_us < self.gap_us:
            raise DefinitionError(
                f"{where}: longest={self.longest!r} is shorter than gap={self.gap!r}; expected e.g. gap='30m', "
                "longest='12h'"
            )

    @property
    def gap_us(self) -> int:
        """Microseconds of `gap`."""
        return required_us(f"Sessionize {self.name!r}: gap", self.gap)

    @property
    def longest_us(self) -> int:
        """Microseconds of `longest`."""
        return required_us(f"Sessionize {self.name!r}: longest", self.longest)

    @property
    def reach_us(self) -> int:
        """How long before its `ts` a session can have begun."""
        return self.gap_us + self.longest_us


def explain_source(source: Any) -> str:
    """Why something is no source of events, and what to do instead."""
    kind = type(source).__name__
    if kind in ("WindowedView", "BatchView", "Selection"):
        return (
            f"source={getattr(source, 'key', None) or source.view.key!r} is a view. A view has no events: its values "
            "change while nothing happens, as windows move on, so what is aggregated of them would depend on when it "
            "was looked at. Aggregate the events of its source, count sessions with Sessionize, or combine values in a "
            "batch view"
        )
    if kind == "Sessionize":
        return f"source={source.name!r} is sessions; sessions of sessions are not supported: choose a longer gap"
    if kind == "TableSource":
        return f"source={source.name!r} is a TableSource, whose rows are no events; read it in a batch view"
    return f"source={source!r} is not an EventSource"
