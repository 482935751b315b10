"""The training set of `by_hand` as one would write it in Polars: cumulative sums per user, and a join_asof per edge.

The same windows, the same sums, the same finishing: 1 + 4 joins for 4 windows. Amounts are whole cents: sums are exact.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from benchmarks.by_hand import SUMS
from benchmarks.shop import TRAINING_WINDOWS
from forebay.language.windows import Window

NEAREST = ("latest", "following", "earliest")


def training_set_by_polars(events: str, spine: pa.Table) -> pa.Table:
    """The spine's ids with 9 features × 4 windows, in any order; defaults are 0."""
    frame = pl.from_arrow(spine)
    assert isinstance(frame, pl.DataFrame)
    asked = frame.select("spine_id", "user_id", t=pl.col("event_timestamp").dt.epoch("us"))
    cumulated = _cumulated(events, asked)
    rows = _at(asked, cumulated, pl.col("t"), "head")
    for window in TRAINING_WINDOWS:
        law = Window.of("training", window, None)
        edge = pl.col("t") - law.length_us
        rows = _at(rows, cumulated, edge - edge.mod(law.hop_us), window)
    return rows.select("spine_id", *_features()).to_arrow()


def _cumulated(events: str, asked: pl.DataFrame) -> pl.DataFrame:
    """Running sums per user, one row per user and instant, by instant; with the last value, the next and the first."""
    cents = (pl.col("amount") * 100).cast(pl.Int64)
    squared = pl.col("cents") * pl.col("cents"), pl.col("items") * pl.col("items")
    summed = [pl.col("one"), pl.col("cents"), squared[0], pl.col("items"), squared[1]]
    found = (
        pl.scan_parquet(events)
        .select("user_id", ts=pl.col("ts").dt.epoch("us"), cents=cents, items="items", one=pl.lit(1, pl.Int64))
        .join(asked.lazy().select("user_id").unique(), on="user_id", how="semi")
        .sort("ts")
    )
    named = [column.cum_sum().over("user_id").alias(name) for name, column in zip(SUMS, summed, strict=True)]
    nearest = [
        pl.col("cents").alias("latest"),
        pl.col("cents").shift(-1).over("user_id").alias("following"),
        pl.col("cents").first().over("user_id").alias("earliest"),
    ]
    last = found.with_columns(*named, *nearest).unique(["user_id", "ts"], keep="last", maintain_order=True)
    return last.select("user_id", "ts", *SUMS, *NEAREST).collect()


def _at(rows: pl.DataFrame, cumulated: pl.DataFrame, edge: pl.Expr, name: str) -> pl.DataFrame:
    """The running sums strictly before an edge of each row."""
    kept = [*SUMS, *(NEAREST[::2] if name == "head" else NEAREST[1:2])]
    renamed = cumulated.select("user_id", "ts", *(pl.col(one).alias(f"{one}@{name}") for one in kept))
    joined = (
        rows.with_columns(edge=edge)
        .sort("edge")
        .join_asof(
            renamed, left_on="edge", right_on="ts", by="user_id", allow_exact_matches=False, check_sortedness=False
        )
    )
    there = pl.col(f"n@{name}").is_not_null().alias(f"any@{name}")
    filled = [pl.col(f"{one}@{name}").fill_null(0) for one in kept]
    return joined.drop("edge", "ts", strict=False).with_columns(there, *filled)


def _features() -> list[pl.Expr]:
    features = []
    for window in TRAINING_WINDOWS:
        n, total, squares, items, item_squares = (pl.col(f"{name}@head") - pl.col(f"{name}@{window}") for name in SUMS)
        many = n > 0
        spread = n.cast(pl.Int128) * squares - total.cast(pl.Int128) * total
        item_spread = n.cast(pl.Int128) * item_squares - items.cast(pl.Int128) * items
        first = pl.when(pl.col(f"any@{window}")).then(pl.col(f"following@{window}")).otherwise(pl.col("earliest@head"))
        features += [
            n.alias(f"n_{window}"),
            _amount(total).alias(f"total_{window}"),
            pl.when(many).then(total / n / 100).otherwise(0.0).alias(f"mean_{window}"),
            pl.when(many).then(spread.cast(pl.Float64).sqrt() / n / 100).otherwise(0.0).alias(f"stddev_{window}"),
            items.alias(f"items_total_{window}"),
            pl.when(many).then(items / n).otherwise(0.0).alias(f"items_mean_{window}"),
            pl.when(many).then(item_spread.cast(pl.Float64).sqrt() / n).otherwise(0.0).alias(f"items_stddev_{window}"),
            _amount(pl.when(many).then(first).otherwise(0)).alias(f"first_{window}"),
            _amount(pl.when(many).then(pl.col("latest@head")).otherwise(0)).alias(f"last_{window}"),
        ]
    return features


def _amount(cents: pl.Expr) -> pl.Expr:
    return (cents.cast(pl.Decimal(38, 2)) / 100).cast(pl.Decimal(38, 2))
