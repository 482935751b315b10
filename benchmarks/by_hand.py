"""The training set as one would write it in SQL: cumulative sums per user, and an ASOF JOIN per window edge.

A window is the running sums before its new edge less those before its old edge: 1 + 4 ASOF JOINs for 4 windows. The
last value is that of the row before the new edge, the first one the value that follows the row before the old edge. So
nine aggregates can be had; the least and the largest can't. Events of one instant are folded to one row first, because
an ASOF JOIN finds one (their order by id is not looked at: no user of these has two that decide a value). Amounts are
whole cents: sums are exact.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from benchmarks.shop import TRAINING_WINDOWS
from forebay.language.windows import Window

THREADS = 2
SUMS = ("n", "total", "squares", "items_total", "items_squares")
CUMULATED = """
    CREATE OR REPLACE TEMP TABLE cumulated AS
    SELECT user_id, ts, max(n) AS n, arg_max(total, n) AS total, arg_max(squares, n) AS squares,
           arg_max(items_total, n) AS items_total, arg_max(items_squares, n) AS items_squares,
           arg_max(cents, n) AS latest, arg_max(following, n) AS following, any_value(earliest) AS earliest
    FROM (
        SELECT user_id, ts, cents, count(*) OVER w AS n, (sum(cents) OVER w)::BIGINT AS total,
               (sum(cents * cents) OVER w)::BIGINT AS squares, (sum(items) OVER w)::BIGINT AS items_total,
               (sum(items * items) OVER w)::BIGINT AS items_squares, lead(cents) OVER w AS following,
               first_value(cents) OVER w AS earliest
        FROM (SELECT user_id, epoch_us(ts) AS ts, (amount * 100)::BIGINT AS cents, items FROM read_parquet('{events}'))
        WHERE user_id IN (SELECT user_id FROM spine)
        WINDOW w AS (PARTITION BY user_id ORDER BY ts ROWS UNBOUNDED PRECEDING)
    )
    GROUP BY user_id, ts
"""


def training_set_by_hand(events: str, spine: pa.Table) -> pa.Table:
    """The spine's ids with 9 features × 4 windows, in any order; defaults are 0."""
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
        old = f"old_{window}"
        joins.append(f"ASOF LEFT JOIN cumulated AS {old} ON s.user_id = {old}.user_id AND {edge} > {old}.ts")
        sums += [f"coalesce(head.{name}, 0) - coalesce({old}.{name}, 0) AS {name}_{window}" for name in SUMS]
        sums += [f"CASE WHEN {old}.n IS NULL THEN head.earliest ELSE {old}.following END AS first_{window}"]
        features += _finished(window)
    return (
        f"SELECT spine_id, {', '.join(features)} FROM (SELECT s.spine_id, head.latest, {', '.join(sums)} "
        "FROM spine AS s ASOF LEFT JOIN cumulated AS head ON s.user_id = head.user_id AND s.t > head.ts "
        f"{' '.join(joins)})"
    )


def _finished(window: str) -> list[str]:
    n, total, squares, items, item_squares = (f"{name}_{window}" for name in SUMS)
    spread = f"{n}::HUGEINT * {squares} - {total}::HUGEINT * {total}"
    item_spread = f"{n}::HUGEINT * {item_squares} - {items}::HUGEINT * {items}"

    def where_any(value: str, otherwise: str = "0.0") -> str:
        return f"CASE WHEN {n} > 0 THEN {value} ELSE {otherwise} END"

    return [
        n,
        f"({total} / 100.0)::DECIMAL(38, 2) AS {total}",
        f"{where_any(f'{total} / {n} / 100')}::DOUBLE AS mean_{window}",
        f"{where_any(f'sqrt({spread}) / {n} / 100')} AS stddev_{window}",
        items,
        f"{where_any(f'{items} / {n}')}::DOUBLE AS items_mean_{window}",
        f"{where_any(f'sqrt({item_spread}) / {n}')} AS items_stddev_{window}",
        f"({where_any(f'first_{window}', '0')} / 100.0)::DECIMAL(38, 2) AS first_{window}",
        f"({where_any('latest', '0')} / 100.0)::DECIMAL(38, 2) AS last_{window}",
    ]
