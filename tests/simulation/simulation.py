"""One run: a shop, its log, its stores, and a scheduler that a seed decides.

    turn    append · read · write · flush · fold and publish · check · kill · drain · take over · zombie ·
            copy, restore, fail over or wipe Redis · the offline store goes away · trim the log
    within  every send and every commit of a turn may die, lose its reply, or let others take turns in between; a send
            may be held up, and arrive after its sender has given it up

Lives here: the turns. What is drawn before the first is in `drawn.py`, who writes the log in `producer.py`, folds and
publications in `batch.py`, what must be so in `expected.py` and `ending.py`. A seed decides everything; which faults a
run has is drawn first, so that some runs have few of them and go deep.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import forebay.backfill.publication
import forebay.ingest.select
import forebay.online.lane
import forebay.online.pending
from forebay import FeatureStore
from forebay.backfill.losses import LostEvents, LostPublication
from forebay.backfill.publication import choose_cut
from forebay.core.codec import NO_CUT
from forebay.core.identity import LANES, SLOTS
from forebay.errors import ForebayError
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, floor_us
from forebay.language.definitions import Definitions
from forebay.offline.loading import load
from forebay.offline.tables import OfflineStore
from forebay.offline.tiles_table import app_id
from forebay.online.cluster import hash_slot
from forebay.online.connection import connect_online
from forebay.online.slot_state import read_cut, read_progress
from forebay.settings import Settings
from streaming.parts import Task
from tests.infra.valkey_cluster import Node, ValkeyCluster
from tests.simulation.batch import Batch
from tests.simulation.copies import NOTHING, Copy
from tests.simulation.drawn import divide_early, expressions, network_of, roll_up_early, stream_of
from tests.simulation.expected import Expected
from tests.simulation.faults import Faults, Killed
from tests.simulation.lake import MemoryLake
from tests.simulation.process import Process, Tries
from tests.simulation.producer import Producer
from tests.simulation.shop import START_US, Customers, Event, Log, Shop

HISTORY_DAYS = 2
TURNS = (25, 45, 75)
"""A run is short, or goes deep."""
PARTITIONS = 2
TAGS = [f"{{{slot:02d}}}" for slot in range(SLOTS)]
CLUSTER_SENDS = 12
"""On a cluster one write is many sends, each of which may be the last."""


class Simulation:
    """One seed's run."""

    def __init__(
        self,
        seed: int,
        home: Path,
        online_url: str,
        patch: pytest.MonkeyPatch,
        *,
        delta: bool,
        cluster: ValkeyCluster | None = None,
    ) -> None:
        self.seed, self.chance = seed, (chance := random.Random(seed))
        self.namespace, self.home = f"sim{seed}", home
        self.settings = Settings(home, online_url, str(home / "offline"), namespace=self.namespace, publish_rate=0)
        self.online, self.cluster = connect_online(self.settings), cluster
        self.homes: dict[int, Node] = {}
        self.store = OfflineStore(self.settings)
        self.now_us = START_US + HISTORY_DAYS * DAY_US + 12 * HOUR_US
        stream = stream_of(seed, self.namespace, PARTITIONS) if chance.random() < 0.4 else None
        self.shop = Shop.make(stream, dedupe=chance.random() < 0.5)
        self.customers, self.log = Customers(chance), Log(self.shop.source.dedupe is not None)
        if not delta:
            MemoryLake().install(patch)
        apart = divide_early(seed, patch) or cluster is not None
        self.faults = Faults(chance, saw=self._saw, act=self._others, apart=apart, looking=self._looking)
        self.faults.install(patch)
        patch.setattr(forebay.ingest.select, "expressions_of", expressions)
        self._choose_faults()
        roll_up_early(seed, patch)
        self.by_id: dict[str, Event] = {}
        self.producer = Producer(self.online, self.log, self.by_id, home / "sales", stream)
        self.producer.open(PARTITIONS)
        self.definitions = Definitions.of(self.shop.service, self.shop.visits)
        features = FeatureStore(self.settings, self.definitions)
        archive = self.store.archive(self.shop.source)
        letters = self.store.dead_letters()
        self.expected = Expected(
            self.shop, self.log, self.online, self.namespace, features, archive, letters, self.by_id
        )
        self.batch = Batch(self.store, self.faults, self.expected, self.say)
        self.batch.watch(patch)
        self.process: Process | None = None
        self.zombies: list[Process] = []
        self.copies: list[Copy] = []
        self.starts = {view.key: NO_CUT for view in self.shop.views}
        self.lost = self.lost_nodes = 0
        self.is_seen = True
        self.said: list[str] = []

    # ---- turns -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """All turns; after each the stores are as the reference says."""
        if self.chance.random() < 0.5:
            self._load_history()
        self.faults.kill, self.faults.lose, self.faults.others, self.faults.hold = self.chosen
        for _ in range(self.chance.choice(TURNS)):
            self.turn()
            self.check_somebody()

    def turn(self) -> None:
        """One turn of somebody."""
        turns = [
            (self.append, 24),
            (self.work, 50),
            (self.flush, 8),
            (self.publish, 4),
            (self.start, 3 if self.process else 60),
            *self.faulty,
        ]
        turn = self.chance.choices([one for one, _ in turns], [weight for _, weight in turns])[0]
        self.say(turn.__name__)
        turn()

    def append(self) -> None:
        """Some lines arrive; sometimes the night passes first."""
        self.now_us += self.chance.choices(
            [self.chance.randrange(SECOND_US), self.chance.randrange(HOUR_US), self.chance.randrange(20 * HOUR_US)],
            [30, 60, 10],
        )[0]
        for _ in range(self.chance.randint(1, 6)):
            self.now_us += self.chance.randrange(MINUTE_US)
            partition = self.chance.choice(list(self.log.lines))
            self.producer.append(partition, self.customers.line(self.now_us), self.now_us)
        self.producer.send_chunks(self.now_us)

    def work(self) -> None:
        """Readers and writers of the flow, a few steps."""
        if self.process is not None:
            for _ in range(self.chance.randint(1, 6)):
                if self.process is not None:
                    self._step(self.process)

    def flush(self) -> None:
        """The flow's background writer."""
        if self.process is not None:
            self._as(self.process, self.process.flush)

    def start(self) -> None:
        """A flow starts; one that runs is killed before, or drained, or does not know of it."""
        if self.process is not None:
            how = self.chance.choice(["kill", "leave"] if self.process.busy else ["kill", "leave", "drain"])
            if how == "kill":
                self._dies(self.process)
            elif how == "drain":
                self._drain(self.process)
            else:
                self.zombies.append(self.process)
                self.process = None
        self._start(self.chance.choice([1, 1, 2, 3, 4, 8]))

    def zombie(self) -> None:
        """A flow that was replaced wakes up."""
        if self.zombies:
            one = self.chance.choice(self.zombies)
            self.chance.choice([lambda: self._step(one), lambda: self._as(one, one.flush)])()

    def kill(self) -> None:
        """The flow dies between two operations."""
        if self.process is not None:
            self._dies(self.process)

    def publish(self) -> None:
        """Batch folds some days and publishes, for one view or both."""
        views = self.chance.sample(self.shop.views, self.chance.randint(1, 2))
        today = max(1, (floor_us(self.now_us, DAY_US) - START_US) // DAY_US)
        first = self.chance.choice([0, max(0, today - 1), self.chance.randrange(today)])
        for view in [*views, *([self.shop.visits] if self.chance.random() < 0.5 else [])]:
            self.batch.publish(view, START_US + first * DAY_US, START_US + today * DAY_US)

    def away(self) -> None:
        """The offline store refuses for a while."""
        self.faults.away = self.chance.randint(1, 12)

    def copy(self) -> None:
        """Somebody copies Redis."""
        self.copies.append(self._copied())

    def lose(self) -> None:
        """Redis comes back without its newest writes, or without anything."""
        self._restore(self.chance.choice([*self.copies, NOTHING]))

    def fail_over(self) -> None:
        """Another Redis takes its place, which has not heard of its last writes; the flow goes on."""
        behind = self._copied()
        for _ in range(self.chance.randint(1, 3)):
            self.append()
            self.work()
        self._restore(behind)
        self.work()

    def overtake(self) -> None:
        """The flow has read what is dated ahead, sleeps while it is replaced, and goes on when it is not any more."""
        if self.process is not None:
            for partition in self.log.lines:
                self.producer.append(partition, self.customers.ahead(self.now_us), self.now_us)
            self.producer.send_chunks(self.now_us)
            earlier = self.process
            for n in range(earlier.workers):
                self._as(earlier, lambda n=n: earlier.read(n))
            if self.process is earlier:
                self.zombies.append(earlier)
                self.process = None
            self.now_us += 2 * MINUTE_US
            self._start(self.chance.choice([1, 2, 4]))
            for _ in range(2):
                self.work()
            self.flush()
            self._as(earlier, earlier.flush)

    def move(self) -> None:
        """A slot is moved to another node key by key, while the flow goes on."""
        assert self.cluster is not None
        place = hash_slot(self.chance.choice(TAGS))
        to = self.chance.choice([node for node in self.cluster.primaries if node is not self.cluster.owner(place)])
        self.cluster.begin_move(place, to)
        acting = self.process
        try:
            self.cluster.move_keys(place, to, count=self.chance.randint(0, 3))
            with self._unseen():
                self.work()
        finally:
            self.cluster.end_move(place, to)
        self.expected.note_verdicts(acting.refused if acting is not None else ())

    @contextmanager
    def _unseen(self) -> Iterator[None]:
        """The reference cannot look at a slot that is on its way; nobody else acts meanwhile."""
        self.is_seen, others, deliver = False, self.faults.others, self.faults.deliver
        self.faults.others = self.faults.deliver = 0.0
        yield
        self.is_seen, self.faults.others, self.faults.deliver = True, others, deliver

    def move_whole(self) -> None:
        """A slot is moved to another node at once."""
        assert self.cluster is not None
        place = hash_slot(self.chance.choice(TAGS))
        self.cluster.move([place], self.chance.choice(self.cluster.primaries))

    def lose_node(self) -> None:
        """A node comes back empty; the others have what they had."""
        assert self.cluster is not None
        node = self.chance.choice(self.cluster.primaries)
        with node.connect() as client, client.pipeline(transaction=False) as pipe:
            for name in client.scan_iter(f"{self.namespace}:*", count=1000):
                pipe.delete(name)
            pipe.execute()
        owners = self.cluster.owners([*map(hash_slot, TAGS)])
        self.expected.forget({slot for slot, owner in enumerate(owners) if owner is node})
        self._disconnect()
        self.lost_nodes += 1

    def _copied(self) -> Copy:
        return Copy.of(self.online, self.namespace, self.expected.memory)

    def _restore(self, copy: Copy) -> None:
        copy.restore(self.online, self.namespace)
        self.expected.memory = copy.memory.copy()
        self._disconnect()
        self.lost += 1

    def _disconnect(self) -> None:
        for process in [*self.zombies, *([self.process] if self.process else [])]:
            for lane in process.parts.lanes.values():
                lane.close()

    def trim(self) -> None:
        """Redis Streams lose what the archive holds."""
        self.producer.trim(self.store.archive(self.shop.source))

    # ---- what turns are made of --------------------------------------------------------------------------------

    def check_somebody(self) -> None:
        """A few entities are as the reference says."""
        for view in self.shop.views:
            entity = self.chance.choice(self.expected.entities(view))
            ahead_us = self.chance.choice([0, 0, 1, MINUTE_US, HOUR_US, 2 * DAY_US])
            with self.faults.none():
                self.expected.check(view, entity, self.now_us, ahead_us)

    def _start(self, workers: int) -> None:
        task = Task(
            self.settings,
            self.definitions,
            [self.shop.source],
            workers,
            patience=Tries(),
            now_us=lambda: self.now_us,
        )
        starting = object()
        self.batch.expire_leases()
        self._note_starts()
        try:
            with self.faults.as_actor(starting):
                provable = self._provable_losses()
                started = Process(task, self.online)
            if self.process is not None:  # it began in the middle of this beginning
                self.zombies.append(self.process)
            self.process = started
            losses = started.parts.summary.losses
            declared = {(loss.view, loss.partition) for loss in losses if isinstance(loss, LostEvents)}
            with self.faults.none():
                since = self._provable_losses()  # a flow that was replaced may have told of its commits meanwhile
            assert provable <= declared <= provable | since, f"lost {provable}, then {since}, declared {declared}"
            published = {loss.view for loss in losses if isinstance(loss, LostPublication)}
            self._check_given_back(published | {loss.view for loss in losses if getattr(loss, "everything", False)})
        except Killed:
            self.say("died while starting")
        except ForebayError as error:
            self.say(f"did not start: {error}")
        self.batch.forget(starting)

    def _provable_losses(self) -> set[tuple[str, str]]:
        """What is in `streamed/` and not online."""
        lost = set()
        for view in self.definitions.windowed_views():
            progress = read_progress(self.online, self.namespace, view)
            for app, end in self.store.streamed(view).positions().items():
                lane, _, partition = app.partition("/")
                if any(slot.next_offset(partition) < end for slot in progress[int(lane) :: LANES]):
                    lost.add((view.key, partition))
        return lost

    def _check_given_back(self, keys: Collection[str]) -> None:
        """Of views of which everything was lost, what can be published is published again."""
        for view in self.shop.views:
            wanted = choose_cut(self.store, view, NO_CUT, set)[0] if view.key in keys else None
            cut_us = read_cut(self.online, self.namespace, view)
            assert wanted is None or cut_us >= wanted, f"{view.key} can be cut at {wanted}, is at {cut_us}"

    def _note_starts(self) -> None:
        """A view of which `streamed/` has no position starts at its cut: it need not hold what lies before."""
        for view in self.shop.views:
            known = self.store.streamed(view).positions()
            if any(app_id(lane, name) not in known for lane in range(LANES) for name in self.log.lines):
                self.starts[view.key] = max(self.starts[view.key], read_cut(self.online, self.namespace, view))

    def _step(self, process: Process) -> None:
        n = self.chance.randrange(process.workers)
        step = process.write if process.waiting and self.chance.random() < 0.7 else process.read
        self._as(process, lambda: step(n))

    def _as(self, process: Process, step: Callable[[], Any]) -> None:
        """A step of a process, which may be its last."""
        try:
            with self.faults.as_actor(process):
                step()
        except Killed:
            self._dies(process)
        if self.is_seen:
            self.expected.note_verdicts(process.refused)
        if process.error is not None and process is self.process:
            if not isinstance(process.error, ForebayError):
                raise process.error
            self.say(f"stopped: {process.error}")
            self._dies(process)

    def _dies(self, process: Process) -> None:
        process.end()
        if process is self.process:
            self.process = None
        self.zombies = [one for one in self.zombies if one is not process]

    def _drain(self, process: Process) -> None:
        """SIGTERM: what was read becomes durable."""
        while process is self.process and process.waiting:
            for n in range(process.workers):
                self._as(process, lambda n=n: process.write(n))
        self._as(process, process.flush)
        self._dies(process)

    def _others(self) -> None:
        """In the middle of somebody's operation somebody else takes a turn."""
        turns = [(self.work, 4), (self.flush, 3), (self.zombie, 3), (self.publish, 2), (self.start, 1)]
        turns += [(self.check_somebody, 4), *([(self.move_whole, 3)] if self.cluster is not None else [])]
        turn = self.chance.choices([one for one, _ in turns], [weight for _, weight in turns])[0]
        self.say(f"  in between: {turn.__name__}")
        turn()

    def _saw(self, what: str) -> None:
        """An operation has arrived."""
        actor = self.faults.acting[-1]
        if not self.is_seen:
            return
        if isinstance(actor, Process):
            self._note_verdicts(actor)
        else:
            self.batch.saw(what, actor)

    def _looking(self) -> Callable[[], None]:
        """A look at what an operation on the online store does, whenever it arrives."""
        actor = self.faults.acting[-1]
        return partial(self._note_verdicts, actor) if isinstance(actor, Process) else self.batch.looking(actor)

    def _note_verdicts(self, process: Process) -> None:
        with self.faults.none():
            self.expected.note_verdicts(process.refused)

    # ---- history, and what a run draws ---------------------------------------------------------------------------

    def _load_history(self) -> None:
        """Two days are loaded from a file, folded and published before any flow runs."""
        events = self.customers.history(HISTORY_DAYS, 25)
        self.producer.note(events)
        self.expected.history = events
        file = self.home / "history.ndjson"
        file.write_bytes(b"".join(event.line() + b"\n" for event in events))
        loaded = load(self.store.archive(self.shop.source), file)
        assert (loaded.rows, loaded.dead) == (len(events), 0)
        for view in self.shop.views:
            self.batch.publish(view, START_US, START_US + HISTORY_DAYS * DAY_US)

    def _choose_faults(self) -> None:
        """Which faults this run has, and how often."""
        chance = self.chance
        turns = [(self.kill, 3), (self.zombie, 8), (self.away, 3), (self.copy, 4), (self.lose, 2), (self.trim, 3)]
        turns += [(self.fail_over, 2), (self.overtake, 2)]
        self.faulty: list[tuple[Callable[[], None], int]] = [one for one in turns if chance.random() < 0.6]
        self.faults.network, hold, deliver = network_of(self.seed)
        self.faults.deliver = deliver / (1 if self.cluster is None else CLUSTER_SENDS)
        chosen = chance.choice([0, 0.004, 0.02]), chance.choice([0, 0.01, 0.03]), chance.choice([0, 0.02, 0.08]), hold
        self.chosen = tuple(share / (1 if self.cluster is None else CLUSTER_SENDS) for share in chosen)
        if self.cluster is not None:
            places = [*map(hash_slot, TAGS)]
            self.homes = dict(zip(places, self.cluster.owners(places), strict=True))
            self.faulty += [one for one in ((self.move, 6), (self.lose_node, 1)) if chance.random() < 0.7]

    def close(self) -> None:
        """Leave nothing behind."""
        for process in [*self.zombies, *([self.process] if self.process else [])]:
            process.end()
        for held in self.faults.held:
            held.close()
        self.expected.features.close()
        if self.cluster is not None:
            for (place, home), owner in zip(self.homes.items(), self.cluster.owners([*self.homes]), strict=True):
                if owner is not home:
                    self.cluster.move([place], home)
        names: list[bytes] = list(self.online.scan_iter(f"{self.namespace}*", count=1000))
        if names:
            self.online.delete(*names)
        self.online.close()

    def say(self, what: str) -> None:
        """For whoever repeats the run."""
        self.said.append(what)
