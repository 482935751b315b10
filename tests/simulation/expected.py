"""What must be so: which events count for an entity now, by the reference, and the checks of both stores.

    counted = ids in the entity's batch blob (before its cut) + applied events from the cut on
    applied = events of the log below the entity's slot's progress, as the reference judges them

Lives here: the model, which looks at positions and at whether blobs changed, never at what they hold. Invariants that
are checked after every step: served == oracle over `counted`; no applied event that was on time is left out; the newest
of these never goes back, but across a loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from forebay.client.feature_store import FeatureStore
from forebay.core.identity import entity_key, slot_of
from forebay.instants import instant_text, moment
from forebay.language.types import DecimalType
from forebay.language.view import WindowedView
from forebay.stores.archive import Archive
from forebay.stores.keys import Keys
from forebay.stores.progress import Cut, Progress
from tests.oracle import oracle
from tests.simulation.shop import BUYERS, SHOPS, START_US, Event, Log, Place, Shop

Ids = Counter[str]


@dataclass
class Batch:
    """What the batch blob of an entity holds."""

    blob: bytes
    cut_us: int
    ids: Ids


@dataclass
class Attempt:
    """A publication under way: the cut and, of each entity, the ids that its tiles were folded from."""

    view: WindowedView
    cut_us: int
    ids: Mapping[str, Ids]


@dataclass
class Memory:
    """What the model knows of the online store; a copy of the store comes with a copy of this."""

    batches: dict[tuple[str, str], Batch] = field(default_factory=dict)
    newest: dict[tuple[str, str], int] = field(default_factory=dict)
    refused: dict[Place, bool] = field(default_factory=dict)
    """The verdict with which events that depend on the clock were passed online."""

    def copy(self) -> Memory:
        return Memory(dict(self.batches), {}, dict(self.refused))


@dataclass
class Expected:
    """The reference of one run."""

    shop: Shop
    log: Log
    online: redis.Redis
    namespace: str
    features: FeatureStore
    archive: Archive
    history: list[Event] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    excused: dict[tuple[str, str], int] = field(default_factory=dict)
    """The cut of a publication that knew nothing of a partition: its events before that are marked instead."""
    checks: int = 0

    def __post_init__(self) -> None:
        self._keys = Keys(self.namespace)

    def excuse(self, view: WindowedView, partition: str, cut_us: int) -> None:
        """A publication is made before the archive holds anything of a partition."""
        self.excused[view.key, partition] = max(cut_us, self.excused.get((view.key, partition), 0))

    def entities(self, view: WindowedView) -> list[str]:
        """Everybody, and somebody unknown."""
        return [*(BUYERS if view.name == "by_buyer" else SHOPS), "nobody"]

    def progress(self, view: WindowedView, entity: str) -> Progress:
        blob: Any = self.online.get(self._keys.progress(view.key, self._slot(view, entity)))
        return Progress() if blob is None else Progress.decode(blob)

    def applied(self, view: WindowedView, entity: str) -> list[tuple[Place, Event, bool]]:
        """The events of an entity that its slot has passed: where, what, and whether late."""
        progress, found = self.progress(view, entity), []
        refused = {place for place, is_refused in self.memory.refused.items() if is_refused}
        for partition in self.log.lines:
            end = progress.next_offset(partition)
            judged = self.log.judge(partition, refused) if end else None
            for offset, event in judged.counts.items() if judged else ():
                if offset < end and event.entity(view) == entity:
                    found.append(((partition, offset), event, offset in judged.late))
        return found

    def note_verdicts(self, refused: Collection[Place]) -> None:
        """Some writer moved: what was just passed was judged by its process, or is what the archive holds."""
        for place, line in self.log.places():
            if line.depends_on_clock and place not in self.memory.refused and self._passed(place):
                self.memory.refused[place] = place in refused or self._is_left_out(place)

    def _is_left_out(self, place: Place) -> bool:
        """Whether the archive has passed a place without holding its event."""
        if self.archive.next_offset(place[0]) <= place[1]:
            return False
        rows = self.archive.scan(["source_partition", "source_offset"]).to_pylist()
        return place not in {(row["source_partition"], row["source_offset"]) for row in rows}

    def _passed(self, place: Place) -> bool:
        """Whether some slot has passed a place."""
        for view in self.shop.views:
            blobs: Any = self.online.mget(self._keys.slots("progress", view.key, range(64)))
            if any(Progress.decode(blob).next_offset(place[0]) > place[1] for blob in blobs if blob is not None):
                return True
        return False

    def note_blobs(self, attempt: Attempt) -> None:
        """A publication moved: blobs that changed hold what it publishes."""
        view = attempt.view
        for entity in self.entities(view):
            blob: Any = self.online.get(self._keys.batch(view.key, self._key(view, entity)))
            where = (view.key, entity)
            known = self.memory.batches.get(where)
            if blob is None:
                self.memory.batches.pop(where, None)
            elif known is None or known.blob != blob:
                self.memory.batches[where] = Batch(blob, attempt.cut_us, attempt.ids.get(entity, Counter()))

    def counted(self, view: WindowedView, entity: str) -> tuple[list[Event], int, list[Event]]:
        """The events that count, the cut, and the applied events that are left out although they were on time."""
        blob: Any = self.online.get(self._keys.cut(view.key, self._slot(view, entity)))
        cut_us, batch = Cut.decode(blob).cut_us, self.memory.batches.get((view.key, entity))
        before: Ids = Counter()
        if batch is not None and batch.cut_us >= cut_us:
            cut_us, before = batch.cut_us, batch.ids
        by_id = {line.event.id: line.event for _, line in self.log.places() if line.event is not None}
        by_id |= {event.id: event for event in self.history}
        counted = [by_id[name] for name in before.elements()]
        assert all(event.ts < cut_us for event in counted), "a batch tile lies behind its cut"
        applied = self.applied(view, entity)
        counted += [event for _, event, _ in applied if event.ts >= cut_us]
        on_time = Counter(
            event.id
            for (partition, _), event, late in applied
            if self.excused.get((view.key, partition), 0) <= event.ts < cut_us and not late
        )
        return counted, cut_us, [by_id[name] for name in on_time - before]

    def check(self, view: WindowedView, entity: str, now_us: int, ahead_us: int) -> None:
        """One entity's features through the client, at an instant at or after now."""
        self.checks += 1
        counted, cut_us, out = self.counted(view, entity)
        assert not out, f"{entity} of {view.key} lacks {[event.id for event in out]}, applied and on time"
        newest = max((event.ts for event in counted), default=START_US)
        at_us = max(now_us, newest + 1, cut_us) + ahead_us
        names = [f"{view.key}:{output}" for output in view.outputs()]
        key = next(iter(view.entity.keys))
        self.last = (view, entity)
        answer = self.features.get_online_features(names, entity_rows=[{key: entity}], at=moment(at_us))
        check_answer(view, counted, entity, at_us, answer.to_dict(), answer.statuses, 0)
        before = self.memory.newest.get((view.key, entity), newest)
        unmarked = self._newest_on_time(view, entity, counted)
        assert unmarked >= before or newest >= before, f"{entity} of {view.key} went back from {before} to {newest}"
        self.memory.newest[view.key, entity] = unmarked

    def told(self, view: WindowedView, entity: str) -> str:
        """What the model knows of an entity, for whoever repeats a run."""
        counted, cut_us, out = self.counted(view, entity)
        lines = [f"{view.key} {entity}: cut {cut_us}, progress {self.progress(view, entity)}"]
        for name, events in (("counted", counted), ("left out", out)):
            lines += [f"  {name} {event.id} {instant_text(event.ts)}" for event in sorted(events, key=lambda e: e.ts)]
        lines += [
            f"  applied {place} {event.id} {instant_text(event.ts)} {'late' if late else ''}"
            for place, event, late in self.applied(view, entity)
        ]
        lines += [
            f"  line {place} {line.event and line.event.id} {line.event and line.event.entity(view)} "
            f"{instant_text(line.event.ts) if line.event else ''} "
            f"{'clock' if line.depends_on_clock else ''} {self.memory.refused.get(place)}"
            for place, line in self.log.places()
        ]
        return "\n".join(lines)

    def _newest_on_time(self, view: WindowedView, entity: str, counted: list[Event]) -> int:
        late = {
            event.id
            for (partition, _), event, is_late in self.applied(view, entity)
            if is_late or event.ts < self.excused.get((view.key, partition), 0)
        }
        return max((event.ts for event in counted if event.id not in late), default=START_US)

    def _key(self, view: WindowedView, entity: str) -> str:
        key = entity_key(view.entity, {next(iter(view.entity.keys)): entity})
        assert key is not None
        return key

    def _slot(self, view: WindowedView, entity: str) -> int:
        return slot_of(self._key(view, entity))


def check_answer(
    view: WindowedView, counted: list[Event], entity: str, at_us: int, values: Any, statuses: Any, row: int
) -> None:
    """Every feature of a view for one entity equals the oracle's."""
    for feature in view.features:
        kind = view.column(feature.of)
        triples = [(entity, event.ts, event.id, event.cents if feature.of else None) for event in counted]
        for text in feature.windows:
            name, window = feature.feature_name(text), feature.window(text)
            units, status = oracle(
                type(feature).__name__,
                triples,
                entity,
                at_us,
                window.length_us,
                window.hop_us,
                of=feature.of is not None,
                scale=kind.scale if isinstance(kind, DecimalType) else 0,
                ttl_us=view.ttl_us,
                default=feature.output(kind).units(feature.default),
            )
            found = (values[name][row], str(statuses[name][row]))
            wanted = (feature.output(kind).python(units), status)
            assert found == wanted, f"{name} of {entity} at {instant_text(at_us)}: {found} is not {wanted}"
