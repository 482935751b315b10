"""What a flow did, for people and for scripts.

Lives here: the counts of one run, gathered by its threads, and how they are said. Events count when they are in the
archive: an event that is read again after a crash counts in the run that archived it.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from forebay.backfill.losses import Loss
from streaming.logs import LOG
from streaming.metrics import Metrics


@dataclass
class Summary:
    """The counts of one run."""

    events: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    commits: dict[str, int] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    seconds: float = 0.0
    metrics: Metrics = field(default_factory=Metrics, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def archived(
        self,
        source: str,
        events: int,
        late: int,
        duplicates: int,
        dead: Iterable[str],
        marked: Collection[str] = (),
    ) -> None:
        """Events and dead letters of a source are durable, duplicates of events were dropped, dates were marked for
        repair.
        """
        reasons = Counter(dead)
        with self.lock:
            self.events[source] += events
            self.late[source] += late
            self.duplicates[source] += duplicates
            self.dead.update(reasons)
        self.metrics.archived(source, events, late, duplicates, reasons)
        if reasons:
            LOG.warning("dead_letters", source=source, **reasons)
        if late or marked:
            LOG.info("late", source=source, events=late, marked=sorted(marked))

    def committed(self, view: str, commit: int) -> None:
        """The online store holds a commit of a view."""
        with self.lock:
            self.commits[view] = max(commit, self.commits.get(view, 0))

    def retried(self, error: BaseException) -> None:
        """A store could not be reached, and is tried again."""
        LOG.warning("retry", why=str(error))
        self.metrics.retried()

    def ended(self, unfinished: Iterable[str]) -> None:
        """A reader reached the end of its partitions; these end in something half written."""
        with self.lock:
            self.unfinished.extend(unfinished)

    def add(self, other: Summary) -> None:
        """What another process of the flow did."""
        with self.lock:
            for mine, theirs in ((self.events, other.events), (self.late, other.late), (self.dead, other.dead)):
                mine.update(theirs)
            self.duplicates.update(other.duplicates)
            self.unfinished.extend(other.unfinished)
        for view, commit in other.commits.items():
            self.committed(view, commit)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("lock", "metrics")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=threading.Lock(), metrics=Metrics())

    def to_dict(self) -> dict[str, Any]:
        """The counts, ready for JSON."""
        total = sum(self.events.values())
        return {
            "events": total,
            "late": sum(self.late.values()),
            "duplicates": sum(self.duplicates.values()),
            "dead": dict(sorted(self.dead.items())),
            "seconds": round(self.seconds, 3),
            "events_per_s": round(total / self.seconds) if self.seconds > 0 else 0,
            "sources": {
                source: {"events": n, "late": self.late[source], "duplicates": self.duplicates[source]}
                for source, n in sorted(self.events.items())
            },
            "commits": dict(sorted(self.commits.items())),
            "unfinished": sorted(self.unfinished),
            "losses": [loss.to_dict() for loss in self.losses],
        }

    def to_json(self) -> str:
        """One line."""
        return json.dumps(self.to_dict())

    def to_text(self) -> str:
        """A few lines."""
        said = self.to_dict()
        dead = ", ".join(f"{count} {reason}" for reason, count in said["dead"].items()) or "none"
        lines = [
            *(f"the online store had lost writes: {loss}" for loss in self.losses),
            f"{said['events']:,} events in {said['seconds']:.1f} s ({said['events_per_s']:,} a second)",
            f"late: {said['late'] or 'none'}",
            *([f"duplicates: {said['duplicates']}"] if said["duplicates"] else []),
            f"dead letters: {dead}",
            *(f"{view}: commit {commit}" for view, commit in said["commits"].items()),
            *(f"not read: {name} ends in something half written" for name in said["unfinished"]),
        ]
        return "\n".join(lines)
