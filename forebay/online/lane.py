"""The lane: the one writer of the stream tiles of some slots.

A commit folds the events of a few source partitions and writes, in one transaction that is sent once (if it is large in
one for each lane, on a cluster in one for each slot: `forebay.online.shares`),

    APPEND  …:p        the finest partials of each entity touched (a pending blob, which readers count at once); of a
                       view of sessions the instants of the events
    EXPIRE  …:p        because APPEND doesn't prolong what it grows; of keys that are not known to live long enough
    MSET    progress   of the views concerned, by lane (cluster: by slot): commit number, next offsets, newest instants
    SADD    refused    offsets that were passed over because they are no events, as judged now, if there are any

so tiles and progress of a slot cannot disagree: whatever is sent again, in whatever pieces, is dropped by its offset,
in the slots that have it. A heartbeat is the MSET alone. Nothing is read on the way but pending blobs that have grown
long, at the end; the next commit begins with their roll-up (`forebay.online.long_blobs`).

All transactions are fenced (`forebay.online.fence`): a lane whose slots were taken over writes nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt
import redis

from forebay.core.codec import NO_CUT
from forebay.core.events import Events
from forebay.core.identity import SLOTS
from forebay.errors import StoreError
from forebay.language.view import WindowedView
from forebay.online.appends import Appends
from forebay.online.connection import address
from forebay.online.division import Division
from forebay.online.expiry import Expiries, key_hashes, lifetimes_s
from forebay.online.keys import Keys
from forebay.online.long_blobs import LongBlobs, SettledUs
from forebay.online.pending import Folded, Fresh, pending_of
from forebay.online.progress import PartitionProgress, Progress
from forebay.online.refusals import refuse_command
from forebay.online.resp import Chunk, part
from forebay.online.shares import Owned, Shares
from forebay.online.wire import pack

_Slots = dict[int, Progress]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stretch:
    """A stretch of one source partition, up to `next_offset`, for all slots of a lane.

    `events` by view key are those of the lane's entities; a view with empty `events` is moved on all the same, a view
    that is missing is not. `newest_us` is the newest instant known of the partition (a heartbeat may move it), `None`
    if none is. `refused` are offsets that are no events, as judged now, and why.
    """

    partition: str
    next_offset: int
    newest_us: int | None
    events: Mapping[str, Events]
    refused: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Applied:
    """What a commit added to a view: what was new in each stretch that names the view, in their order."""

    commit: int
    folded: Sequence[Folded]


def wall_clock_us() -> int:
    """Now, in UTC microseconds."""
    return time.time_ns() // 1000


class Lane:
    """The writer of `slots` for `views`, once it has taken over; or once another has, with a `token` that it hands on.

    `beside` are the tokens of a flow of the same source beside which it writes views that this flow doesn't know: it
    takes the slots of these views alone, and ends when another flow takes over those tokens.

    After `StoreUnavailableError` call the same `commit` again: it reconnects, voids what may still be on its way, and
    drops what had arrived. After `FencedError` stop.
    """

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        views: Sequence[WindowedView],
        slots: Sequence[int],
        *,
        clock_us: Callable[[], int] = wall_clock_us,
        token: bytes | None = None,
        settled_us: SettledUs | None = None,
        beside: Mapping[str, bytes | None] | None = None,
    ) -> None:
        self._views = {view.key: view for view in views}
        self._pending = {view.key: pending_of(view) for view in views}
        self._slots, self._clock_us = sorted(slots), clock_us
        self._mine = np.isin(np.arange(SLOTS), self._slots)
        self._keys = keys = Keys.of(client, namespace)
        sources = sorted({view.source.name for view in views})
        owners = sources if beside is None else list(self._views)
        watched = dict(beside or {})
        owned = Owned(
            lambda slot: [keys.fence(slot, owner) for owner in owners],
            f"{len(self._slots)} slots of {', '.join(owners)} in {namespace!r}",
            "The store has lost its data. Start again: the stream rewinds.",
            lambda slot: {name: watched[name] for source in sources if (name := keys.fence(slot, source)) in watched},
        )
        self._shares = Shares(client, self._slots, owned, token)
        self._progress: dict[str, _Slots] = {}
        self._tellers = {
            division: [np.unique(keys.tellers(np.array(some, np.int64))).tolist() for some in division.shares]
            for division in (self._shares.whole, self._shares.finest)
        }
        self._check_whole()
        self._names_of_progress = {view: keys.slots("progress", view, range(SLOTS)) for view in self._views}
        self._expiries = Expiries()
        self.long = LongBlobs(
            self._shares.finest,
            keys,
            self._expiries,
            clock_us,
            settled_us,
            self.next_offset,
            {key: (view, self._pending[key]) for key, view in self._views.items()},
        )
        self._number = 0

    @property
    def progress(self) -> Mapping[str, Mapping[int, Progress]]:
        """How far each view is, by slot; a slot to which nothing was applied is absent."""
        return self._progress

    @property
    def streams(self) -> dict[str, list[str]]:
        """The keys of its views, by source."""
        found: dict[str, list[str]] = {}
        for view in self._views.values():
            found.setdefault(view.source.name, []).append(view.key)
        return found

    @property
    def token(self) -> bytes:
        """What another process needs to write as this lane."""
        return self._shares.token

    @property
    def tokens(self) -> dict[str, bytes]:
        """What makes it the writer, once it is in the store (`forebay.online.takeover`)."""
        return self._shares.tokens

    def begin(self) -> None:
        """Read how far its slots are, once it is their writer. Raises `FencedError` where it is not."""
        self._open()
        self._shares.arm()
        self._shares.void()
        self._remember(self._read_progress())

    def take_over(self) -> None:
        """Become the writer, on its own: whoever was it before is fenced from now on."""
        self._shares.open()
        self._shares.take()
        self._remember(self._read_progress())

    def newest(self) -> int:
        """The greatest number under which somebody took a slot of a cluster that is its own."""
        self._open()
        return self._shares.newest()

    def take_as(self, number: int) -> None:
        """Become the writer on a cluster under the number of a take-over; each slot is told which views it streams.

        Raises `FencedError` where somebody has a slot under a greater one.
        """
        told = {source: msgspec.json.encode(views) for source, views in self.streams.items()}
        self._open()
        self._shares.take_as(
            number,
            lambda slot: [pack(("SET", self._keys.slot_streams(slot, name), views)) for name, views in told.items()],
        )

    def next_offset(self, view: str, partition: str) -> int:
        """The first offset of a partition that some slot of the view has not applied."""
        known = self._progress.get(view, {})
        return min((known.get(slot, Progress()).next_offset(partition) for slot in self._slots), default=0)

    def commit(self, stretches: Sequence[Stretch]) -> dict[str, Applied]:
        """Apply stretches, less what is applied already; what was added to each view that got something.

        Raises `FencedError` where another lane took over, and has written nothing in the share that found out;
        `StoreUnavailableError`, and may or may not have written any share, where the server cannot be reached.
        """
        self._ready()
        number = self._number + 1
        progress = {view: dict(self._progress[view]) for stretch in stretches for view in stretch.events}
        fresh: dict[str, list[Events]] = {view: [] for view in progress}
        for some in _side_by_side(stretches):
            for view in some[0].events:
                fresh[view] += self._unapplied(view, progress[view], some)
                _advance(progress[view], self._slots, number, some)
        pending = {view: self._pending[view].fresh(parts) for view, parts in fresh.items()}
        pending = {view: new for view, new in pending.items() if len(new.keys)}
        refused = [
            (name, stretch) for stretch in stretches if stretch.refused for name in sorted(self._sources_of(stretch))
        ]
        self._write(number, progress, pending, refused)
        return {view: Applied(number, new.folded) for view, new in pending.items()}

    def beat(self, source: str, ends: Mapping[str, int], seen_us: int) -> None:
        """Move the watermarks of a source's views on: some partitions held nothing behind `ends` at an instant.

        No commit: its number stays. Raises as `commit` does; it may be called again.
        """
        self._ready()
        moved: dict[int, Progress] = {}
        progress: dict[str, _Slots] = {}
        for view, slots in self._progress.items():
            if self._views[view].source.name == source:
                for known in slots.values():
                    if id(known) not in moved:
                        moved[id(known)] = known.beaten(ends, seen_us)
                progress[view] = {slot: moved[id(known)] for slot, known in slots.items()}
        changed = {view: slots for view, slots in progress.items() if any(_differ(slots, self._progress[view]))}
        if changed:
            self._shares.commit(self._progress_commands(changed))
            self._progress.update(changed)

    def aim(self, view: str, targets: Mapping[str, int], since_us: int = NO_CUT) -> None:
        """Let the slots of a view answer only when partitions are applied up to some offsets, and for no instant before
        `since_us`. Raises as `commit`.
        """
        self._ready()
        known = self._progress.get(view, {})
        slots = {slot: known.get(slot, Progress()).aimed(targets, since_us) for slot in self._slots}
        self._shares.commit(self._progress_commands({view: slots}))
        self._progress[view] = slots

    def mark(self, view: str, lacking: Mapping[str, int]) -> None:
        """Let those slots of a view that are new, or were being filled, answer when they have what they lack of the
        archive: partitions up to some offsets. Raises as `commit`.
        """
        self._ready()
        known = self._progress.setdefault(view, {})
        marked = {slot: known.get(slot, Progress()).marked(lacking) for slot in self._slots}
        changed = {slot: now for slot, now in marked.items() if now != known.get(slot, Progress())}
        if changed:
            self._shares.commit(self._progress_commands({view: changed}))
            known |= changed

    def close(self) -> None:
        """Disconnect. The fence stays: whoever comes next takes it."""
        self._shares.close()

    def _write(
        self,
        number: int,
        progress: dict[str, _Slots],
        applied: Mapping[str, Fresh],
        refused: Sequence[tuple[str, Stretch]],
    ) -> None:
        division = self._shares.division(sum(len(new.keys) for new in applied.values()))
        commands = self._progress_commands(progress, division) if progress else {}
        for place, rolled in self.long.rolled(number, division).items():
            commands.setdefault(place, []).extend(rolled)
        ahead = {place: len(some) for place, some in commands.items()}
        applied = {view: _in_order(new, division) for view, new in applied.items()}
        blobs = {view: Appends(self._keys, view, new.keys, new.slots) for view, new in applied.items()}
        spans = {view: division.spans(new.slots) for view, new in applied.items()}
        for view, new in applied.items():
            appends = blobs[view].append(new.bodies)
            for place, rows in spans[view]:
                commands.setdefault(place, []).append(part(appends, rows))
        for view, new in applied.items():
            for place, chunk in self._expire_commands(view, new, blobs[view], division):
                commands.setdefault(place, []).append(chunk)
        self._add_refusals(commands, refused, division)
        asked = self.long.asked(division)
        for place, reads in asked.items():
            commands.setdefault(place, []).extend(reads)
        try:
            replies = self._shares.commit(commands, division)
        except BaseException:
            self.long.again()
            raise
        self._number = number
        self._progress.update(progress)
        left = {place: iter(some[ahead.get(place, 0) :]) for place, some in replies.items()}
        for view, new in applied.items():
            lengths = [np.fromiter(left[place], np.int64, rows.stop - rows.start) for place, rows in spans[view]]
            self.long.grown(view, new, np.concatenate(lengths))
        self.long.done({place: replies[place][-len(reads) :] for place, reads in asked.items()})

    def _expire_commands(
        self, view: str, new: Fresh, blobs: Appends, division: Division
    ) -> Iterator[tuple[int, Chunk]]:
        """What has the pending blobs that are written live long enough, of those not known to; by share."""
        now_us = self._clock_us()
        lifetimes = lifetimes_s(self._views[view], new.newest_us, now_us)
        rows, kept_s = self._expiries.due(key_hashes(view, new.keys), lifetimes, now_us)
        if len(rows):
            commands = blobs.expire(rows, kept_s)
            for place, some in division.spans(new.slots[rows]):
                yield place, part(commands, some)

    def _add_refusals(
        self, commands: dict[int, list[bytes | Chunk]], refused: Sequence[tuple[str, Stretch]], division: Division
    ) -> None:
        """Make verdicts on what is no event as durable as the progress that passes over them, in each share."""
        for source, stretch in refused:
            for place, slots in enumerate(division.shares):
                told = refuse_command(self._keys, slots[0], source, stretch.partition, stretch.refused)
                commands.setdefault(place, []).append(told)

    def _progress_commands(
        self, progress: Mapping[str, _Slots], division: Division | None = None
    ) -> dict[int, list[bytes | Chunk]]:
        """What says how far each slot is, by share (of the whole)."""
        encoded: dict[int, bytes] = {}
        commands: dict[int, list[bytes | Chunk]] = {}
        for place, tellers in enumerate(self._tellers[division or self._shares.whole]):
            parts: list[str | bytes] = ["MSET"]
            for view, slots in progress.items():
                names = self._names_of_progress[view]
                for slot in tellers:
                    known = slots.get(slot)
                    if known is not None:
                        blob = encoded.get(id(known)) or encoded.setdefault(id(known), known.encode())
                        parts += (names[slot], blob)
            if len(parts) > 1:
                commands[place] = [pack(tuple(parts))]
        return commands

    def _sources_of(self, stretch: Stretch) -> set[str]:
        return {self._views[view].source.name for view in stretch.events}

    def _unapplied(self, view: str, progress: _Slots, stretches: Sequence[Stretch]) -> Iterator[Events]:
        """The events of each of some stretches of different partitions that their slots have not applied yet."""
        values = _distinct(progress.values())
        together = next(iter(values.values())) if len(values) == 1 and len(progress) == len(self._slots) else None
        for stretch in stretches:
            events = stretch.events[view]
            self._check_mine(view, events)
            if together is None or not _is_behind(events, together.next_offset(stretch.partition)):
                applied = np.zeros(SLOTS, np.int64)
                offsets = {one: known.next_offset(stretch.partition) for one, known in values.items()}
                for slot, known in progress.items():
                    applied[slot] = offsets[id(known)]
                new = events.offset >= applied[events.slots][events.code]
                events = events if new.all() else events.take(np.flatnonzero(new))
            yield events

    def _check_whole(self) -> None:
        """Raise `ValueError` where slots are told of together and it has some of them only."""
        told = self._keys.tellers(np.arange(SLOTS))
        if (np.isin(told, [slot for some in self._tellers[self._shares.whole] for slot in some]) != self._mine).any():
            raise ValueError(f"Slots {self._slots} are not whole lanes, which one server's writers have")

    def _check_mine(self, view: str, events: Events) -> None:
        mine = self._mine[events.slots]
        if not mine.all():
            stray = events.keys[int(np.argmin(mine))].as_py()
            raise StoreError(
                f"A lane of slots {self._slots} was given entity {stray!r} of another lane, for view {view!r}. "
                "Split events by forebay.core.identity.slots_of."
            )

    def _open(self) -> None:
        if not self._shares.is_open:
            self._shares.open()

    def _ready(self) -> None:
        """Reconnect after a failure, and make sure that the server still has what it acknowledged."""
        if self._shares.is_open:
            return
        self._shares.open()
        try:
            self._shares.arm()
            self._shares.void()
            found = self._read_progress()
            for view, slots in self._progress.items():
                if any(found[view].get(slot, Progress()).lacks(known) for slot, known in slots.items()):
                    raise StoreError(
                        f"Redis at {address(self._shares.client)} lost writes of view {view!r} that it acknowledged. "
                        "Start the stream again: it rewinds to what is there."
                    )
        except BaseException:
            self._shares.close()
            raise
        self._expiries.forget()
        self._remember(found)

    def _remember(self, progress: dict[str, _Slots]) -> None:
        self._progress = progress
        self._number = max((known.commit for slots in progress.values() for known in slots.values()), default=0)

    def _read_progress(self) -> dict[str, _Slots]:
        progress: dict[str, _Slots] = {}
        for view in self._views:
            asked = {place: self._keys.progress(view, some) for place, some in enumerate(self._shares.whole.shares)}
            found = self._shares.mget(asked)
            blobs = [blob for place in asked for blob in found[place]]
            pairs = zip(self._slots, blobs, strict=True)
            progress[view] = {slot: Progress.decode(blob) for slot, blob in pairs if blob is not None}
        return progress


def _in_order(new: Fresh, division: Division) -> Fresh:
    """What a commit adds, share by share."""
    order = division.order(new.slots)
    return new if order is None else new.take(order)


def _differ(new: _Slots, old: _Slots) -> Iterator[bool]:
    return (known is not old[slot] for slot, known in new.items())


def _side_by_side(stretches: Sequence[Stretch]) -> Iterator[list[Stretch]]:
    """Pieces that follow one another, of the same views and each of another partition: none waits for another."""
    some: dict[str, Stretch] = {}
    for stretch in stretches:
        if some and (stretch.partition in some or stretch.events.keys() != next(iter(some.values())).events.keys()):
            yield [*some.values()]
            some = {}
        some[stretch.partition] = stretch
    if some:
        yield [*some.values()]


def _is_behind(events: Events, offset: int) -> bool:
    """Whether all events are at an offset or behind it."""
    return not len(events) or int(events.offset.min()) >= offset


def _advance(progress: _Slots, slots: Sequence[int], number: int, stretches: Sequence[Stretch]) -> None:
    """Move all slots on by stretches of different partitions; slots that are equally far share one value."""
    spans = {
        stretch.partition: PartitionProgress(
            stretch.next_offset, NO_CUT if stretch.newest_us is None else stretch.newest_us
        )
        for stretch in stretches
    }
    nothing = Progress()
    old = [progress.get(slot, nothing) for slot in slots]
    moved = {which: known.advanced(number, spans) for which, known in _distinct(old).items()}
    if len(moved) == 1:
        progress.update(dict.fromkeys(slots, *moved.values()))
    else:
        progress.update({slot: moved[id(known)] for slot, known in zip(slots, old, strict=True)})


def _distinct(values: Collection[Progress]) -> dict[int, Progress]:
    """Each of some values once, by its identity: most slots are equally far, and share one."""
    return dict(zip(map(id, values), values, strict=True))
