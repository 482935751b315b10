"""What must be so: which events count for an entity now, by the reference, and the checks of both stores.

    counted = ids in the entity's batch blob (before its cut) + applied events from the cut on
    applied = events of the log below the entity's slot's progress, as the reference judges them

Lives here: the model, which looks at positions and at whether blobs changed, never at what they hold. Invariants that
are checked after every step: served == oracle over `counted`, or UNAVAILABLE while a new slot is filled; no applied
event that was on time is left out; the newest of these never goes back, but across a loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from forebay.client.feature_store import FeatureStore
from forebay.core.identity import entity_key, slot_of
from forebay.instants import instant_text, instant_us, moment
from forebay.language.view import WindowedView
from forebay.offline.archive import Archive
from forebay.offline.dead_letters import DeadLetters
from forebay.online.keys import Keys
from forebay.online.progress import Cut, Progress
from forebay.online.refusals import Refusals
from tests.laws.asked import asked
from tests.laws.sessionizer import session_triples
from tests.simulation.shop import BUYERS, SHOPS, START_US, Event, Log, Place, Shop

Ids = Counter[str]
MARKED = {"PRESENT": "STALE", "DEFAULT_MISSING": "UNAVAILABLE", "DEFAULT_EXPIRED": "UNAVAILABLE"}
"""The status of a value whose window reaches loaded events that are not online."""


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


@dataclass(frozen=True)
class Seen:
    """Of one entity: the events that were applied online (where, what, whether late), the cut, the ids before it."""

    applied: list[tuple[Place, Event, bool]]
    cut_us: int
    before: Ids
    filling: bool = False
    """Whether its slot has not yet got what was archived when the view was new."""


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
    letters: DeadLetters
    events: dict[str, Event]
    """All events by their id, those of the history too."""
    history: list[Event] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    excused: dict[tuple[str, str], int] = field(default_factory=dict)
    """The cut of a publication that knew nothing of a partition: its events before that are marked instead."""
    checks: int = 0

    def __post_init__(self) -> None:
        self._keys = Keys.of(self.online, self.namespace)

    def excuse(self, view: WindowedView, partition: str, cut_us: int) -> None:
        """A publication is made before the archive holds anything of a partition."""
        self.excused[view.key, partition] = max(cut_us, self.excused.get((view.key, partition), 0))

    def entities(self, view: WindowedView) -> list[str]:
        """Everybody, and somebody unknown."""
        return [*(SHOPS if view.entity.name == "shop" else BUYERS), "nobody"]

    def look(self, view: WindowedView, entity: str) -> Seen:
        """What stands beside the tiles of an entity, and what of the log it has been given."""
        slot, batch = self._slot(view, entity), self.memory.batches.get((view.key, entity))
        names = [*self._keys.progress(view.key, [slot]), self._keys.cut(view.key, slot)]
        found: Any = self.online.mget(names)
        progress = Progress() if found[0] is None else Progress.decode(found[0])
        cut_us, before = Cut.decode(found[1]).cut_us, Counter[str]()
        if batch is not None and batch.cut_us >= cut_us:
            cut_us, before = batch.cut_us, batch.ids
        return Seen(self._applied(progress, view, entity), cut_us, before, bool(progress.targets))

    def _applied(self, progress: Progress, view: WindowedView, entity: str) -> list[tuple[Place, Event, bool]]:
        """The events of an entity that its slot has passed: where, what, and whether late."""
        refused = frozenset(place for place, is_refused in self.memory.refused.items() if is_refused)
        found = []
        for partition, span in progress.partitions.items():
            judged = self.log.judge(partition, refused)
            for offset, event in judged.counts.items():
                if offset < span.next_offset and event.entity(view) == entity:
                    found.append(((partition, offset), event, offset in judged.late))
        return found

    def note_verdicts(self, refused: Collection[Place]) -> None:
        """Some writer moved: what was just passed was judged by its process, or is what the archive holds."""
        for place, line in self.log.places():
            if line.depends_on_clock and place not in self.memory.refused and self._passed(place):
                self.memory.refused[place] = place in refused or self._is_left_out(place)

    def _is_left_out(self, place: Place) -> bool:
        """Whether the archive has passed a place because its event was dated too far ahead: it is a dead letter."""
        if self.archive.next_offset(place[0]) <= place[1]:
            return False
        rows = self.letters.scan(self.shop.source.name).to_pylist()
        return place in {(row["source_partition"], row["source_offset"]) for row in rows}

    def _passed(self, place: Place) -> bool:
        """Whether some slot has passed a place."""
        for view in self.shop.views:
            blobs: Any = self.online.mget(self._keys.progress(view.key, range(64)))
            if any(Progress.decode(blob).next_offset(place[0]) > place[1] for blob in blobs if blob is not None):
                return True
        return False

    def forget(self, slots: Collection[int]) -> None:
        """The online store lost all that it had of some slots."""
        views = {view.key: view for view in (*self.shop.views, self.shop.visits)}
        memory, left = self.memory, self.memory.batches.items()
        memory.batches = {of: batch for of, batch in left if self._slot(views[of[0]], of[1]) not in slots}
        memory.newest = {}
        told = Refusals(self.online, self.namespace).read(self.shop.source.name)
        memory.refused = {
            place: verdict
            for place, verdict in memory.refused.items()
            if self._passed(place) or place[1] in told.get(place[0], ())
        }

    def note_blobs(self, attempt: Attempt) -> None:
        """A publication moved: blobs that changed hold what it publishes."""
        view = attempt.view
        entities = self.entities(view)
        found: Any = self.online.mget([self._keys.batch(view.key, self._key(view, entity)) for entity in entities])
        for entity, blob in zip(entities, found, strict=True):
            where = (view.key, entity)
            known = self.memory.batches.get(where)
            if blob is None:
                self.memory.batches.pop(where, None)
            elif known is None or known.blob != blob:
                self.memory.batches[where] = Batch(blob, attempt.cut_us, attempt.ids.get(entity, Counter()))

    def check(self, view: WindowedView, entity: str, now_us: int, ahead_us: int) -> None:
        """One entity's features through the client, at an instant at or after now."""
        self.checks += 1
        self.last = (view, entity)
        seen = self.look(view, entity)
        counted = [self.events[name] for name in seen.before.elements()]
        assert all(event.ts < seen.cut_us for event in counted), "a batch tile lies behind its cut"
        counted += [event for _, event, _ in seen.applied if event.ts >= seen.cut_us]
        on_time = [
            event for place, event, late in seen.applied if not late and not self._is_excused(view, place, event)
        ]
        lacking = Counter(event.id for event in on_time if event.ts < seen.cut_us) - seen.before
        assert not lacking, f"{entity} of {view.key} lacks {[*lacking]}, applied and on time"
        newest = max((event.ts for event in counted), default=START_US)
        at_us = max(now_us, newest + 1, seen.cut_us) + ahead_us
        names = [f"{view.key}:{output}" for output in view.outputs()]
        key = next(iter(view.entity.keys))
        answer = self.features.get_online_features(names, entity_rows=[{key: entity}], at=moment(at_us))
        if seen.filling:
            statuses = {str(status) for name in view.outputs() for status in answer.statuses[name]}
            assert statuses == {"UNAVAILABLE"}, f"{entity} of {view.key} is not filled, and answers {statuses}"
            return
        (missing,) = answer.metadata["views"][view.key]["missing"]
        missing_us = None if missing is None else instant_us(missing)
        check_answer(view, counted, entity, at_us, answer.to_dict(), answer.statuses, 0, missing_us)
        if missing_us is not None:
            reach_us = view.sessions.reach_us if view.sessions is not None else 0
            newest_us = missing_us - 1 - reach_us
            assert newest_us in {event.ts for event in self.history}, "what is missing was loaded"
        known = {event.id for event in on_time} | {event.id for event in self.history}
        settled = max((event.ts for event in counted if event.id in known), default=START_US)
        before = self.memory.newest.get((view.key, entity), START_US)
        assert max(settled, newest) >= before, f"{entity} of {view.key} went back from {before} to {newest}"
        self.memory.newest[view.key, entity] = settled

    def _is_excused(self, view: WindowedView, place: Place, event: Event) -> bool:
        return event.ts < self.excused.get((view.key, place[0]), 0)

    def told(self) -> str:
        """What the model knows of the entity that was checked last, for whoever repeats a run."""
        view, entity = self.last
        seen = self.look(view, entity)
        lines = [f"{entity} of {view.key}: cut {instant_text(max(seen.cut_us, 0))}, before it {dict(seen.before)}"]
        lines += [
            f"  {place[0]} {place[1]}  {event.id} {instant_text(event.ts)}{' late' if late else ''}"
            for place, event, late in seen.applied
        ]
        return "\n".join(lines)

    def _key(self, view: WindowedView, entity: str) -> str:
        key = entity_key(view.entity, {next(iter(view.entity.keys)): entity})
        assert key is not None
        return key

    def _slot(self, view: WindowedView, entity: str) -> int:
        return slot_of(self._key(view, entity))


def check_answer(
    view: WindowedView,
    counted: list[Event],
    entity: str,
    at_us: int,
    values: Any,
    statuses: Any,
    row: int,
    missing_us: int | None = None,
) -> None:
    """Every feature of a view for one entity equals the oracle's, and is marked where events before some instant are
    missing that its window reaches.
    """
    for feature in view.features:
        kind = view.column(feature.of)
        triples = _triples(view, feature.of, counted, entity)
        for text in feature.windows:
            name, window = feature.feature_name(text), feature.window(text)
            units, status = asked(view, feature, text, triples, entity, at_us)
            edge_us = window.start_us(at_us)
            if missing_us is not None and (edge_us is None or edge_us < missing_us):
                status = MARKED.get(status, status)
            found = (values[name][row], str(statuses[name][row]))
            wanted = (feature.output(kind).python(units), status)
            assert found == wanted, f"{name} of {entity} at {instant_text(at_us)}: {found} is not {wanted}"


def _triples(view: WindowedView, of: str | None, counted: list[Event], entity: str) -> list[tuple[Any, ...]]:
    """What the oracle takes: events, or the sessions in them."""
    if view.sessions is None:
        return [(entity, event.ts, event.id, event.cents if of else None) for event in counted]
    instants, rule = [(entity, event.ts) for event in counted], view.sessions
    found: list[tuple[Any, ...]] = session_triples(
        instants, rule.gap_us, rule.longest_us, lambda start, end, events: end - start if of else None
    )
    return found
