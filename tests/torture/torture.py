"""One run: a seed decides what is hit in which order; at the end both stores are reckoned, whole.

    producer   ──▶ topic ────▶ flow ──▶ Valkey ──▶ reader: nothing moves back
    tills      ──▶ streams ──▶  │ └───▶ SeaweedFS ──▶ batch ──▶ Valkey
                   the hits ────┴─ and on each of the others

Lives here: the order of things, and what is said. Real processes do not run the same way twice: a seed repeats what is
hit and what is produced, not the instants.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from forebay.client.feature_store import FeatureStore
from forebay.instants import DAY_US, HOUR_US
from forebay.language.view import WindowedView
from forebay.online.slot_state import read_cut
from tests.simulation.reckoning import (
    check_archive,
    check_dead_letters,
    check_online,
    check_repairs,
    check_streamed,
    check_training,
    counted,
)
from tests.simulation.shop import Event, Log
from tests.torture.batch import Batch
from tests.torture.flows import Flow
from tests.torture.ground import STREAM, TOPIC, Ground, ground
from tests.torture.hits import Hits
from tests.torture.producer import BUYERS, SHOPS, Production
from tests.torture.streams import Tills
from tests.torture.watch import Watch

KILLS_PER_HIT = 5
"""Of each other kind of hit there is one for so many kills."""
SPINE_ROWS = 200
LAST_S = 900.0
"""The last flow has all the time that the broker needs (what Tansu takes it for is in tests/infra/tansu.py).

A flow that once waited in vain for three last events waited for the broker: S3 listed a partition in 90 to 370 ms on
a loaded machine, and a fetch had 100. A run that fails says how far a client of its own is given the log: as far as the
flow got, and it is the broker that has to be looked at; further, and it is the flow.
"""


def _tried(known: Callable[[], object]) -> object:
    """What is known; why not, where that cannot be said: what a run failed for is not hidden behind it."""
    try:
        return known()
    except Exception as error:  # noqa: BLE001  whatever hinders it is said instead
        return repr(error)


def repeat(seed: int, kills: int, *, cluster: bool = False) -> str:
    """The command that repeats a run."""
    return f"make torture SEED={seed} KILLS={kills}{' CLUSTER=1' if cluster else ''}"


class Torture:
    """A run of one seed: ``kills`` of a working flow at least, and hits until ``minutes`` have passed."""

    def __init__(
        self, seed: int, kills: int, minutes: float, say: Callable[[str], None], *, cluster: bool = False
    ) -> None:
        self._cluster = cluster
        self.seed, self._kills, self._until_s = seed, kills, time.monotonic() + 60 * minutes
        self._chance, self._say = random.Random(seed), say
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """Everything. Raises what is found to be wrong."""
        with (
            tempfile.TemporaryDirectory(prefix="torture-") as folder,
            ground(dedupe=self._chance.random() < 0.5, cluster=self._cluster) as on,
        ):
            sales, tills, watch = Production(on, self.seed), Tills(on, self.seed), Watch(on)
            batch = Batch(on, watch, self.seed, self.counts)

            def produced() -> dict[str, int]:
                return sales.acknowledged | tills.acknowledged

            hits = Hits(on, produced, watch, batch, self._chance, Path(folder), self._say, self.counts)
            batch.load()
            for one in (sales, tills, watch, batch):
                one.start()
            try:
                self._hit(hits)
                for one in (sales, tills, batch):
                    one.stop()
                said = self._to_the_end(hits)
                batch.repair()
                watch.stop()
                self._reckon(on, {TOPIC: sales.log(), STREAM: tills.log}, batch)
                assert said["unfinished"] == []
            except BaseException as error:
                self._say(f"{error!r}: what follows is how things stand, as far as can be seen")
                for known in (on.applied, on.archived, produced, sales.given, hits.stacks):
                    self._say(f"{known.__name__}: {_tried(known)}")
                raise
            finally:
                if hits.flow is not None:
                    hits.flow.close()
            self.counts["lines that were not acknowledged"] = sales.refused
            self.counts["entries appended"], self.counts["entries trimmed"] = tills.entries, tills.trimmed()
            self.counts["reads"], self.counts["reads refused while Valkey was away"] = watch.reads, watch.refused

    def _hit(self, hits: Hits) -> None:
        for hit in self._script(hits):
            hit()
        while self.counts["killed while working"] < self._kills:
            hits.kill()
        while time.monotonic() < self._until_s:
            self._chance.choice([*self._kinds(hits), hits.kill])()

    def _script(self, hits: Hits) -> list[Callable[[], None]]:
        """The hits that every run has, in the order that the seed gives them."""
        often = max(1, self._kills // KILLS_PER_HIT)
        script = [hits.kill] * self._kills + self._kinds(hits) * often
        if self._kills > KILLS_PER_HIT:
            script.append(hits.s3_long)
        self._chance.shuffle(script)
        return script

    def _kinds(self, hits: Hits) -> list[Callable[[], None]]:
        kinds = [hits.terminate, hits.pause, hits.second, hits.valkey, hits.lose, hits.s3, hits.broker, hits.streams]
        return [*kinds, hits.move] if self._cluster else kinds

    def _to_the_end(self, hits: Hits) -> dict[str, object]:
        """What runs drains; one more flow reads what is left and says what it did."""
        if hits.flow is not None:
            hits.flow.terminate()
            hits.flow.await_end()
        hits.flow = Flow(hits.folder / "last", hits.ground.environment, 2, "--until-end")
        ended = hits.flow.await_end(LAST_S)
        assert ended.code == 0, f"the last flow failed: {ended.errors}"
        summary: dict[str, object] = json.loads(ended.said)
        self._say(ended.said.strip())
        return summary

    def _reckon(self, on: Ground, logs: Mapping[str, Log], batch: Batch) -> None:
        """Both stores, whole, against the logs as those have them that hold or made them."""
        features = on.features()
        for shop, log in zip(on.shops, logs.values(), strict=True):
            source, history = shop.source, batch.history[shop.source.name]
            refused = check_dead_letters(on.store, source, log)
            counts = counted(log, refused)
            check_archive(on.store, source, counts, len(history))
            check_repairs(on.store, source, log, refused)
            for view in shop.views:
                cut_us = read_cut(on.online, on.settings.namespace, view)
                check_streamed(on.store, source, view, cut_us)
            for view in shop.all_views:
                self._ask(features, view, [*history, *counts.values()])
            self._count(source.name, log, counts, len(refused))
        features.close()

    def _ask(self, features: FeatureStore, view: WindowedView, events: list[Event]) -> None:
        """What a client and a training set are given."""
        entities = SHOPS if view.entity.name == "shop" else BUYERS
        newest_us = max(event.ts for event in events)
        for at_us in (newest_us + 1, newest_us + 7 * HOUR_US):
            check_online(features, view, [*entities, "nobody"], events, at_us)
        ats = [newest_us - self._chance.randrange(DAY_US) for _ in range(SPINE_ROWS)]
        check_training(features, view, [(self._chance.choice(entities), at) for at in ats], events)

    def _count(self, source: str, log: Log, counts: dict[tuple[str, int], Event], refused: int) -> None:
        lines = [line for _, line in log.places()]
        judged = [one for name in log.lines for one in [log.judge(name, frozenset())]]
        self.counts[f"{source}: lines"] = len(lines)
        self.counts[f"{source}: events in both stores"] = len(counts)
        self.counts[f"{source}: late beyond lateness"] = sum(len(one.late) for one in judged)
        self.counts[f"{source}: duplicates dropped"] = sum(len(one.duplicates) for one in judged)
        self.counts[f"{source}: broken lines"] = sum(line.broken is not None for line in lines)
        self.counts[f"{source}: dated ahead and refused"] = refused
