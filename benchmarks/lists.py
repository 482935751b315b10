"""Lists and sketches of training rows, from memory to memory: what windows hold beyond sums.

Distinct counts, quantiles, most frequent values, last values and histograms cannot be had from cumulative sums, so by
hand one joins every row with all events in its window, in DuckDB. It gets its tables in Arrow, Forebay the core's
columns; the exact ones of the values are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.kernel import Asked
from benchmarks.purchases import Purchases
from benchmarks.report import OURS, Comparison, Report
from benchmarks.rounds import Contender, interleaved, per_unit
from benchmarks.shop import purchases, user
from benchmarks.training import DAYS, FIRST_SPINE_DAY, START_US
from forebay import CountDistinct, Histogram, LastK, Quantile, TopK, WindowedView
from forebay.core.layout import Layout
from forebay.core.sweep import answer_sweep
from forebay.instants import DAY_US

EXACT, BEYOND = 1024, 5 / 1023**0.5
"""Up to how many distinct values are counted, and five standard errors of what is estimated beyond."""
BY_HAND = "DuckDB, joined by range"
WINDOWS = ["7d", "30d"]
view = WindowedView(
    "lists",
    version=1,
    entity=user,
    source=purchases,
    features=[
        CountDistinct("amounts", of="amount", windows=WINDOWS, default=0),
        Quantile("p90", of="amount", q=0.9, windows=WINDOWS, default=0.0),
        TopK("items", of="items", k=3, windows=WINDOWS, default=[]),
        LastK("last", of="amount", k=5, windows=WINDOWS, default=[]),
        Histogram("spread", of="amount", edges=[10, 20, 50], windows=WINDOWS, default=[]),
    ],
)
SQL = """
    SELECT n, count(DISTINCT cents) AS amounts,
           list_sort(list(cents))[1 + (9 * (count(*) - 1)) // 10] AS p90,
           histogram(items) AS items,
           list(cents ORDER BY ts, id)[-5:] AS last,
           [count(*) FILTER (cents < 1000), count(*) FILTER (cents >= 1000 AND cents < 2000),
            count(*) FILTER (cents >= 2000 AND cents < 5000), count(*) FILTER (cents >= 5000)] AS spread
    FROM asked JOIN events ON asked.who = events.who AND ts >= edge AND ts < instant
    GROUP BY n ORDER BY n
"""


@dataclass(frozen=True)
class Size:
    """How many events there are, and how many rows are asked."""

    events: int = 300_000
    users: int = 6_000
    rows: int = 6_000
    rounds: int = 3


TINY = Size(events=5_000, users=100, rows=300, rounds=1)


def run(size: Size) -> Report:
    """Measure both, per row."""
    bench = _Bench(size)
    bench.check()
    contenders: dict[str, Contender] = {OURS: per_unit(bench.swept), BY_HAND: per_unit(bench.by_hand)}
    samples = interleaved(contenders, size.rounds)
    comparisons = [
        Comparison.of("lists and sketches", samples, BY_HAND, "wall_us", "µs/row wall"),
        Comparison.of("lists and sketches", samples, BY_HAND, "cpu_us", "µs/row CPU"),
    ]
    setting = f"{size.events:,} events of {size.users:,} users, {size.rows:,} rows, {len(WINDOWS)} windows × 5 features"
    return Report("lists", setting, size.rounds, comparisons)


class _Bench:
    """The same events and rows for both."""

    def __init__(self, size: Size) -> None:
        drawn = Purchases.drawn(size.events, size.users, START_US, START_US + DAYS * DAY_US)
        events = drawn.events(view)
        rng = np.random.default_rng(5)
        instants = START_US + rng.integers(FIRST_SPINE_DAY * DAY_US, DAYS * DAY_US, size.rows)
        self.asked = Asked(events, events.code[rng.integers(0, size.events, size.rows)], instants)
        self.events = pa.table(
            {
                "who": events.code,
                "ts": events.ts,
                "id": events.ids,
                "cents": events.columns["amount"].values,
                "items": events.columns["items"].values,
            }
        )

    def swept(self) -> int:
        """By Forebay; how many rows."""
        self._sweep()
        return len(self.asked.code)

    def by_hand(self) -> int:
        """By DuckDB; how many rows."""
        for text in WINDOWS:
            self._join(text)
        return len(self.asked.code)

    def check(self) -> None:
        """What is exact is the same in both. Raises `AssertionError`."""
        mine = self._sweep()
        for text in WINDOWS:
            joined = self._join(text)
            rows = joined["n"].to_numpy()
            distinct, found = joined["amounts"].to_numpy(), mine[f"amounts_{text}"].values[rows]
            assert (abs(found / distinct - 1) <= np.where(distinct <= EXACT, 0, BEYOND)).all(), (
                f"amounts_{text} differs"
            )
            for name in ("last", "spread"):
                found = mine[f"{name}_{text}"].take(rows)
                values: list[Any] = [list(one) if isinstance(one, tuple) else one for one in found.values.tolist()]
                assert values == joined[name].to_pylist(), f"{name}_{text} differs"

    def _sweep(self) -> dict[str, Any]:
        columns = answer_sweep(Layout.of(view), self.asked.events, self.asked.code, self.asked.us, threads=2)
        return {column.feature.name: column for column in columns}

    def _join(self, text: str) -> pa.Table:
        window = view.features[0].window(text)
        edge = self.asked.us - (window.length_us or 0)
        asked = pa.table(
            {
                "n": np.arange(len(edge)),
                "who": self.asked.code,
                "instant": self.asked.us,
                "edge": edge - edge % window.hop_us,
            }
        )
        with duckdb.connect(config={"threads": 2}) as connection:
            connection.register("asked", asked)
            connection.register("events", self.events)
            return connection.sql(SQL).to_arrow_table()
