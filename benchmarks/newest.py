"""What a publication of a batch view reads: the newest row of each entity, by what was kept of them and among all rows.

Each round computes the last day anew for every user, as a refresh does, and then finds the newest rows twice; both must
be the same. What is timed of Forebay's way includes writing what the next publication goes by.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from benchmarks.purchases import INSTANT, names
from benchmarks.report import OURS, Comparison, Report
from benchmarks.rounds import Contender, Measured, interleaved, per_unit
from benchmarks.shop import HISTORY_START, profile
from forebay.backfill import newest
from forebay.backfill.newest import RowsAt, newest_rows
from forebay.instants import DAY_US, day_us
from forebay.offline.tables import OfflineStore
from forebay.settings import processors

START_US = day_us(HISTORY_START)
ALL = "a look at all rows"


@dataclass(frozen=True)
class Size:
    """How many days there are rows of, and for how many users each day."""

    days: int = 365
    users: int = 20_000
    rounds: int = 5


TINY = Size(days=10, users=50, rounds=1)


def run(size: Size) -> Report:
    """Measure both on one table."""
    kept_rows = patch.object(newest, "KEPT_ROWS", min(newest.KEPT_ROWS, size.days * size.users))
    with kept_rows, tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        store = OfflineStore(folder)
        for first in range(0, size.days, 30):
            write(store, size, first, min(first + 30, size.days))
        samples = interleaved({OURS: refreshed(store, size), ALL: per_unit(lambda: len(among_all(store)))}, size.rounds)
    comparisons = [
        Comparison.of("newest rows, the last day computed anew", samples, ALL, "wall_us", "µs/entity wall"),
        Comparison.of("newest rows, the last day computed anew", samples, ALL, "cpu_us", "µs/entity CPU"),
    ]
    setting = f"{size.days:,} days with a row of each of {size.users:,} users, 5 floats"
    return Report("newest", setting, size.rounds, comparisons)


def refreshed(store: OfflineStore, size: Size) -> Contender:
    """Compute the last day anew, then measure."""

    def contender() -> Measured:
        write(store, size, size.days - 1, size.days)
        found: list[pa.Table] = []

        def look() -> int:
            found.append(newest_rows(store, profile).rows)
            return size.users

        measured = per_unit(look)()
        assert by_user(found[0]).equals(by_user(among_all(store))), "what was kept says something else"
        return measured

    return contender


def among_all(store: OfflineStore) -> pa.Table:
    """The newest rows among all."""
    snapshot = store.rows(profile).table.snapshot()
    assert snapshot is not None
    return RowsAt(profile, snapshot, processors(), remote=False).newest().rows


def by_user(rows: pa.Table) -> pa.Table:
    """In an order of their own."""
    return rows.sort_by("user_id").combine_chunks()


def write(store: OfflineStore, size: Size, first: int, last: int) -> None:
    """Rows of each user for some days, in one commit."""
    count = (last - first) * size.users
    rng = np.random.default_rng(time.time_ns())
    start_us = START_US + np.repeat(np.arange(first, last), size.users) * DAY_US
    created_us = time.time_ns() // 1_000
    instants = {
        "event_timestamp": start_us + DAY_US,
        "created_timestamp": np.full(count, created_us),
        "partition_start": start_us,
    }
    users = names("u", np.tile(np.arange(size.users), last - first))
    scores = {name: pa.array(rng.normal(size=count)) for name in profile.outputs()}
    columns = {name: pa.array(us, INSTANT) for name, us in instants.items()}
    days = START_US + first * DAY_US, START_US + last * DAY_US
    store.rows(profile).overwrite(*days, pa.table({"user_id": users, **scores, **columns}), created_us)
