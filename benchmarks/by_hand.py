"""The training set as one would write it in SQL: cumulative sums per user, and an ASOF JOIN per window edge.

A window is the running sums before its new edge less those before its old edge: 1 + 4 ASOF JOINs for 4 windows. Only
what can be subtracted can be had so. Events of one instant are folded to one row first, because an ASOF JOIN finds one.
Amounts are whole cents: sums are exact.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from benchmarks.shop import TRAINING_WINDOWS
from forebay.language.windows import Window

THREADS = 2
SUMS = ("n", "total", "squares", "items_total")
CUMULATED = """
    CREATE OR REPLACE TEMP TABLE cumulated AS
    SELECT user_id, ts, max(n) AS n, arg_max(total, n) AS total, arg_max(squares, n) AS squares,
           arg_max(items_total, n) AS items_total
    FROM (
        SELECT user_id, ts, count(*) OVER w AS n, (sum(cents) OVER w)::BIGINT AS total,
               (sum(cents * cents) OVER w)::BIGINT AS squares, (sum(items) OVER w)::BIGINT AS items_total
        FROM (SELECT user_id, epoch_us(ts) AS ts, (amount * 100)::BIGINT AS cents, items FROM read_parquet('{events}'))
        WHERE user_id IN (SELECT user_id FROM spine)
        WINDOW w AS (PARTITION BY user_id ORDER BY ts ROWS UNBOUNDED PRECEDING)
    )
    GROUP BY user_id, ts
"""


def training_set_by_hand(events: str, spine: pa.Table) -> pa.Table:
    """The spine's ids with 5 features × 4 windows, in any order; defaults are 0."""
    connection = duckdb.connect()
    connection.execute(f"SET threads = {THREADS}; SET enable_progress_bar = false; SET TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = false")
    connection.register("given", spine)
    connection.execute("CREATE TEMP TABLE spine AS SELECT spine_id, user_id, epoch_us(event_timestamp) AS t FROM given")
    connection.execute(CUMULATED.format(events=events))
    return connection.sql(query()).to_arrow_table()


def query() -> str:
    """Differences of running sums, and the features that they are finished to."""
    joins, sums, features = [], [], []
    for window in TRAINING_WINDOWS:
        law = Window.of("training", window, None)
        edge = f"((s.t - {law.length_us}) - (s.t - {law.length_us}) % {law.hop_us})"
        joins.append(
            f"ASOF LEFT JOIN cumulated AS old_{window} ON s.user_id = old_{window}.user_id AND {edge} > old_{window}.ts"
        )
        sums += [f"coalesce(head.{name}, 0) - coalesce(old_{window}.{name}, 0) AS {name}_{window}" for name in SUMS]
        n, total, squares = (f"{name}_{window}" for name in SUMS[:3])
        spread = f"{n}::HUGEINT * {squares} - {total}::HUGEINT * {total}"
        features += [
            n,
            f"({total} / 100.0)::DECIMAL(38, 2) AS {total}",
            f"CASE WHEN {n} > 0 THEN {total} / {n} / 100 ELSE 0.0 END::DOUBLE AS mean_{window}",
            f"CASE WHEN {n} > 0 THEN sqrt({spread}) / {n} / 100 ELSE 0.0 END AS stddev_{window}",
            f"items_total_{window}",
        ]
    return (
        f"SELECT spine_id, {', '.join(features)} FROM (SELECT s.spine_id, {', '.join(sums)} FROM spine AS s "
        f"ASOF LEFT JOIN cumulated AS head ON s.user_id = head.user_id AND s.t > head.ts {' '.join(joins)})"
    )
