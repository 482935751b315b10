"""The law on real stores, of sessions: what is read online equals the oracle, whatever batch and stream do meanwhile.

A seeded site whose visits arrive through two partitions, out of order within their lateness. Commits online, appends to
the archive (either may be ahead of the other), takeovers with a replay, roll-ups, folds and publications happen in
random order; after each of them every visitor and page is read.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import pytest

from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.core.identity import SLOTS
from forebay.ingest.select import Selector
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, floor_us
from forebay.online import pending
from forebay.online.keys import PENDING, STREAM
from forebay.online.lane import Lane, Stretch
from streaming import settling
from streaming.settling import Positions, Settling
from tests.sessions.world import (
    LATENESS_US,
    START,
    VIEWS,
    Visit,
    World,
    at,
    some_visits,
    visit,
    visits,
)

DAYS = 4


@dataclass
class Site:
    """Two logs, how far each is applied and archived, and a lane."""

    world: World
    chance: random.Random
    logs: list[list[Visit]]
    applied: list[int] = field(default_factory=lambda: [0, 0])
    archived: list[int] = field(default_factory=lambda: [0, 0])

    def __post_init__(self) -> None:
        self.selectors = {view.key: Selector(view) for view in VIEWS}
        self.take_over()

    def take_over(self) -> None:
        """A new lane, which is given again some of what was applied."""
        archive = self.world.store.archive(visits)
        settled = Settling(lambda source: archive.positions(), ask=at_once)
        self.lane = Lane(self.world.redis, self.world.settings.namespace, VIEWS, range(SLOTS), settled_us=settled)
        self.lane.take_over()
        for part, end in enumerate(self.applied):
            first = self.chance.randint(0, end)
            self.commit(part, first, self.chance.randint(first, end))

    @property
    def seen(self) -> list[Visit]:
        """What was applied."""
        return [one for log, end in zip(self.logs, self.applied, strict=True) for one in log[:end]]

    def step(self) -> None:
        """The next batch of a partition: online, or into the archive."""
        part = self.chance.randrange(2)
        size = self.chance.choice([1, 5, 40])
        if self.chance.random() < 0.5:
            end = min(self.applied[part] + size, len(self.logs[part]))
            self.commit(part, self.applied[part], end)
            self.applied[part] = max(self.applied[part], end)
        else:
            ahead = len(self.logs[part]) if self.chance.random() < 0.1 else self.applied[part]
            self.archive(part, max(self.archived[part], min(self.archived[part] + size, ahead)))

    def archive(self, part: int, end: int) -> None:
        first, self.archived[part] = self.archived[part], end
        if end > first:
            self.world.archive(self.logs[part][first:end], f"p{part}")

    def commit(self, part: int, first: int, end: int) -> None:
        """A stretch of a log, online."""
        if end <= first:
            return
        batch = self.world.batch(self.logs[part][first:end], f"p{part}", first)
        newest_us = max(one["ts"] for one in self.logs[part][:end])
        events = {key: selector.select(batch.table) for key, selector in self.selectors.items()}
        self.lane.commit([Stretch(f"p{part}", end, newest_us, events)])

    def catch_up(self) -> None:
        """Both stores hold what either has."""
        for part in range(2):
            end = max(self.applied[part], self.archived[part])
            self.commit(part, self.applied[part], end)
            self.archive(part, end)
            self.applied[part] = end

    def publish(self) -> None:
        """Fold the days that have ended, or some of them, and publish; nothing is archived alone by then."""
        for part, end in enumerate(self.archived):
            self.commit(part, self.applied[part], end)
            self.applied[part] = max(self.applied[part], end)
        if not all(self.archived):
            return  # where no stream has run, batch goes on alone
        newest = max(one["ts"] for one in self.world.archived)
        days = max(1, (floor_us(newest, DAY_US) - START) // DAY_US)
        first = self.chance.randrange(days)
        for view in VIEWS:
            fold_dates(self.world.store, view, at(first), at(days))
            publish_view(self.world.redis, self.world.settings.namespace, self.world.store, view)

    def blobs(self, kind: str) -> int:
        """The bytes of all blobs of a kind."""
        names = self.world.redis.keys(f"{self.world.settings.namespace}:*:{kind}")
        return sum(self.world.redis.strlen(name) for name in names)


def at_once(question: Callable[[], Positions]) -> Future[Positions]:
    """A seed is to be the same each time: nothing is asked aside."""
    asked: Future[Positions] = Future()
    asked.set_result(question())
    return asked


def arrived(chance: random.Random, days: float, count: int) -> list[list[Visit]]:
    """Two logs, each in order of arrival: every event up to the lateness late."""
    late = {n: chance.choice([0, 0, chance.randrange(LATENESS_US)]) for n in range(2 * count)}
    made = some_visits(chance, days, count)
    arriving = [one for _, one in sorted(enumerate(made), key=lambda pair: pair[1]["ts"] + late[pair[0]])]
    return [arriving[0::2], arriving[1::2]]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roll up with every commit, and ask the archive each time."""
    monkeypatch.setattr(pending.PendingEvents, "long_bytes", 0)
    for asked in ("are_long", "are_urgent"):
        monkeypatch.setattr(pending.PendingEvents, asked, lambda self, lengths, added: np.ones(len(lengths), np.bool_))
    monkeypatch.setattr(settling, "ASK_EVERY_S", 0.0)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("seed", range(8))
def test_online_training_and_oracle_agree(seed: int, world: World) -> None:
    chance = random.Random(seed)
    site = Site(world, chance, arrived(chance, DAYS, 250))
    while any(end < len(log) for end, log in zip(site.applied, site.logs, strict=True)):
        chance.choices([site.step, site.publish, site.take_over, site.catch_up], [12, 1, 1, 2])[0]()
        newest_us = max((one["ts"] for one in [*site.seen, *world.archived]), default=START)
        world.check_online(site.seen, newest_us + chance.choice([1, 31 * MINUTE_US, HOUR_US, 2 * DAY_US]))
    assert site.blobs(STREAM) > 0, "what no window needs is settled"
    assert site.blobs(PENDING) < 8 * 3 * len(site.seen), "published days leave"
    rows = [visit(n, START + chance.randrange((DAYS + 1) * DAY_US)) for n in range(8)]
    site.catch_up()
    world.check_training(site.seen, rows)


@pytest.mark.usefixtures("eager")
def test_nothing_is_settled_before_the_lane_has_caught_up_with_the_archive(world: World) -> None:
    """
    archive  ●23:00 ●23:50 … ●23:25 ●00:05 ●03:00 │ a cut is published at midnight
    lane     ●23:00 ●23:50 │ then the others, one by one: 23:25 makes one session of two, 00:05 takes it across the cut
    """
    eve = [visit(n, at(0, 23, 49 + n), "eve") for n in (2, 3, 4)]
    ann = [visit(n, at(0, hour, minute)) for n, hour, minute in ((5, 23, 25), (6, 24, 5), (7, 27, 0))]
    log = [visit(0, at(0, 23, 0)), visit(1, at(0, 23, 50)), *eve, *ann]
    site = Site(world, random.Random(1), [log, []])
    site.archive(0, len(log))
    site.commit(0, 0, 2)
    for view in VIEWS:
        fold_dates(world.store, view, at(0), at(1))
        assert publish_view(world.redis, world.settings.namespace, world.store, view).cut_us == at(1)
    for n in range(2, len(log)):
        site.commit(0, n, n + 1)
    world.check_online(log, at(2), VIEWS)


@pytest.mark.usefixtures("eager")
def test_what_comes_late_just_before_a_cut_finds_the_beginning_of_a_session_that_is_over_behind_it(
    world: World,
) -> None:
    """
    day      0                     1 = cut
    ann      ●23:20                │            ●05:00      the first is over before the cut: batch has it
    late              ●23:45       │00:15                   it is over behind the cut now: batch has it no more
    """
    log = [
        visit(0, at(0, 23, 20)),
        *(visit(n, at(1, 3), "eve") for n in (1, 2)),
        visit(3, at(1, 5)),
        *(visit(n, at(1, 6), "eve") for n in (4, 5)),
        visit(6, at(0, 23, 45)),
        visit(7, at(1, 7), "eve"),
    ]
    site = Site(world, random.Random(1), [log, []])

    def take(first: int, end: int) -> None:
        for n in range(first, end):
            site.commit(0, n, n + 1)
        site.archive(0, end)

    take(0, 3)
    for view in VIEWS:
        fold_dates(world.store, view, at(0), at(1))
        assert publish_view(world.redis, world.settings.namespace, world.store, view).cut_us == at(1)
    take(3, 6)
    take(6, 8)
    for view in VIEWS:
        fold_dates(world.store, view, at(0), at(1))
        assert publish_view(world.redis, world.settings.namespace, world.store, view).cut_us == at(1)
    world.check_online(log, at(2), VIEWS)
