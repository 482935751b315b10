"""The demo's steps, in order: each drives the user's commands and remembers what came of it.

Lives here: what is run at which step and what is kept for the report. How a command is run is told in
`demo/commands.py`, what is drawn on the screen in `demo/report.py`.

Batch rows become effective as time passes, so weather and aircraft are built up to each pause and not further. Those
commands touch other tables and keys than the stream does, and run beside it as they would in production.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from demo import model
from demo.commands import CHECKOUT, Shell, forebay, materialize
from demo.feed import SOURCES, Files, append_stream, between, shifted, spine, write_history
from demo.flights import Flights, read_flights
from demo.probes import KEYS, NOTHING_PROBED, Pause, Verdict, judge, rows_at, with_instant
from demo.report import Screen
from demo.timeline import Timeline, partitions
from feature_defs.services import arrival_delay
from forebay import FeatureStore
from forebay.calls.responses import OnlineResponse
from forebay.errors import ForebayError
from forebay.instants import DAY_US, HOUR_US, instant_text, moment

SERVICE = arrival_delay.key
WINDOWED = ("origin_delays_v1", "carrier_delays_v1", "aircraft_legs_v1")
HOURLY, DAILY = "origin_weather_v1", "aircraft_register_v1"
STALE_BY_US = DAY_US
LIVE_US = HOUR_US
"""At a pause, the flights scheduled to leave within this time are scored live."""
MARK = "made_by_the_demo"


@dataclass(slots=True)
class Run:
    """One run of the demo: what it works on and what it found."""

    files: Files
    timeline: Timeline
    screen: Screen
    shell: Shell
    flights: Flights = field(default_factory=read_flights)
    pauses: list[Pause] = field(default_factory=list)
    live: list[pa.Table] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    auc: dict[str, float | None] = field(default_factory=dict)
    verdict: Verdict = NOTHING_PROBED
    tiles_until_us: int = 0
    rows_until_us: int = 0

    @contextmanager
    def step(self, name: str, says: str) -> Iterator[None]:
        """Time a step and show that it is going on."""
        began, cpu_began = time.perf_counter(), cpu_s()
        with self.screen.step(says):
            yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - began, 2)
        self.cpu_seconds[name] = round(self.cpu_seconds.get(name, 0.0) + cpu_s() - cpu_began, 2)

    def all(self) -> None:
        """Every step, in order."""
        self.prepare()
        self.deploy()
        self.load_history()
        self.backfill()
        self.stream()
        self.training_set()
        self.prove()
        self.learn()

    def prepare(self) -> None:
        """Start from an empty home, and write the files that the commands read."""
        claim(self.files, self.shell)
        with self.step("files", "Writing history, tables and spine"):
            loaded = write_history(self.files, self.flights, self.timeline)
            flown = spine(self.flights, self.timeline)
            pq.write_table(flown, self.files.work / "spine.parquet")
        self.counts |= {"history_events": sum(loaded.values()), "flights": flown.num_rows}

    def deploy(self) -> None:
        """Step 1: show the plan and apply it."""
        with self.step("apply", "Planning and applying feature_defs/"):
            (plan,) = self.shell.run(forebay("plan"))
            self.shell.run(forebay("apply"))
        self.screen.show("forebay plan", plan)

    def load_history(self) -> None:
        """Step 2, first half: append the history to the archives."""
        with self.step("load", f"Loading {self.counts['history_events']:,} events of history"):
            self.shell.run(*(forebay("load", source, str(self.files.history(source))) for source in SOURCES))

    def backfill(self) -> None:
        """Step 2, second half: tiles and batch views up to the split, published to the online store."""
        start_us, split_us = self.timeline.start_us, self.timeline.split_us
        with self.step("backfill", "Dagster backfills tiles, weather and aircraft, and publishes them"):
            daily = [*(f"tiles/{view}" for view in WINDOWED), *(f"online/{view}" for view in WINDOWED)]
            self.shell.run(
                materialize([*daily, *_batch(DAILY)], partitions(start_us, split_us, DAY_US).text),
                materialize(_batch(HOURLY), partitions(start_us, split_us, HOUR_US).text),
            )
        self.tiles_until_us = self.rows_until_us = split_us

    def stream(self) -> None:
        """Step 3: the rest of the events, up to each pause; at each pause, read online."""
        from_us = self.timeline.split_us
        for number, pause_us in enumerate(self.timeline.pauses_us):
            appended = append_stream(self.files, self.flights, from_us, pause_us)
            says = f"Streaming {appended:,} events up to {instant_text(pause_us)}"
            with self.step("stream", says):
                self.shell.run(forebay("stream", "--until-end"), *self._batch_rows_until(pause_us))
            self.counts["stream_events"] = self.counts.get("stream_events", 0) + appended
            self._read_online(pause_us)
            if number == self.timeline.catch_up_pause:
                self._catch_up(pause_us)
                self._read_online(pause_us)
            from_us = pause_us

    def _batch_rows_until(self, pause_us: int) -> Iterator[Any]:
        """The commands that build and publish the batch views' partitions that have ended since the last time."""
        for view, grain_us in ((HOURLY, HOUR_US), (DAILY, DAY_US)):
            ended = partitions(self.rows_until_us, pause_us, grain_us)
            if ended:
                yield materialize(_batch(view), ended.text)
        self.rows_until_us = pause_us

    def _catch_up(self, pause_us: int) -> None:
        """The batch side builds the days that were streamed so far: the seam moves, and no value may."""
        ended = partitions(self.tiles_until_us, pause_us, DAY_US)
        if ended:
            with self.step("catch_up", f"The batch side catches up with {ended.text}: the seam moves"):
                selected = [*(f"tiles/{view}" for view in WINDOWED), *(f"online/{view}" for view in WINDOWED)]
                self.shell.run(materialize(selected, ended.text))
            self.tiles_until_us = ended.end_us

    def _read_online(self, pause_us: int) -> None:
        """Read every known aircraft, and the flights that leave soon, as of the pause."""
        with self.step("read", f"Reading online at {instant_text(pause_us)}"):
            store = FeatureStore.connect()
            rows = rows_at(self.flights, pause_us, self.timeline.start_us)
            answer = _online(store, rows, pause_us)
            cuts_us = {view: behind.cuts for view, behind in answer.views.items()}
            self.pauses.append(Pause(pause_us, cuts_us, answer.to_arrow()))
            leaving = between(self.flights.spine, "event_timestamp", pause_us, pause_us + LIVE_US)
            leaving = leaving.filter(leaving["late"].is_valid())
            if leaving.num_rows:
                vectors = _online(store, leaving.select(KEYS), pause_us).to_arrow()
                self.live.append(vectors.append_column("late", leaving["late"]))

    def training_set(self) -> None:
        """Step 4: a row for every flight, and the same a day earlier, and a row for every probe."""
        work = self.files.work
        flown = pq.read_table(work / "spine.parquet")
        probes = pa.concat_tables(with_instant(pause.online.select(KEYS), pause.instant_us) for pause in self.pauses)
        spines = {"training": flown, "stale": shifted(flown, STALE_BY_US), "probes": probes}
        for name, table in spines.items():
            pq.write_table(table, work / f"spine_{name}.parquet")
            with self.step(
                "training_set", f"Building the {name} set of {table.num_rows:,} rows, point-in-time correct"
            ):
                inputs = ("--spine", str(work / f"spine_{name}.parquet"), "--out", str(work / f"{name}.parquet"))
                self.shell.run(forebay("training-set", SERVICE, *inputs))
        self.counts["training_rows"] = flown.num_rows

    def prove(self) -> None:
        """Step 5: what was read at the pauses equals what the training path says of them."""
        with self.step("compare", "Comparing online values with training values"):
            training = pq.read_table(self.files.work / "probes.parquet")
            first = 0
            for pause in self.pauses:
                rows = pause.online.num_rows
                self.verdict += judge(pause, training.slice(first, rows), arrival_delay, self.flights)
                first += rows

    def learn(self) -> None:
        """Step 6: what fresh features are worth to a small model."""
        split_us, end_us, start_us = self.timeline.split_us, self.timeline.end_us, self.timeline.start_us
        names = [name for _, name in arrival_delay.columns()]
        with self.step("model", "Learning from the training set, fresh and a day stale"):
            scheduled = pq.read_table(self.files.work / "spine.parquet")["event_timestamp"]
            for kind, file in (("fresh", "training"), ("stale", "stale")):
                table = pq.read_table(self.files.work / f"{file}.parquet")
                learned = model.learn(model.labelled(table, start_us, split_us, scheduled), names)
                self.auc[kind] = model.auc(learned, model.labelled(table, split_us, end_us, scheduled))
                if kind == "fresh" and self.live:
                    live = pa.concat_tables(self.live)
                    self.counts["live_vectors"] = live.num_rows
                    self.auc["live"] = model.auc(learned, live)


def cpu_s() -> float:
    """The CPU time of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def claim(files: Files, shell: Shell) -> None:
    """Take an empty home, or clear one that an earlier demo made; anybody else's is refused."""
    mark = files.work / MARK
    events = files.home / "offline" / "events"
    added = {folder.name for folder in events.iterdir()} - set(SOURCES) if events.is_dir() else set()
    if mark.exists() and not added:
        shell.run(forebay("down"))
        shutil.rmtree(files.home)
    elif files.home.exists() and any(files.home.iterdir()):
        what = f"events of {', '.join(sorted(added))}, " if added else "something "
        raise ForebayError(
            f"The demo needs a home of its own, and {files.home} already holds {what}that the demo did not make. "
            "Run it with another one: FOREBAY_HOME=.forebay-demo forebay demo"
        )
    dagster_home = files.home / "dagster"
    dagster_home.mkdir(parents=True)
    files.work.mkdir(parents=True)
    mark.touch()
    if (CHECKOUT / "dagster.yaml").exists():
        shutil.copy(CHECKOUT / "dagster.yaml", dagster_home)


def _batch(view: str) -> list[str]:
    return [f"features/{view}", f"online/{view}"]


def _online(store: FeatureStore, rows: pa.Table, at_us: int) -> OnlineResponse:
    return store.get_online_features(features=SERVICE, entity_rows=rows.to_pylist(), at=moment(at_us))
