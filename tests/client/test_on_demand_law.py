"""The law of on-demand features: every way computes the same, each row as if it were alone.

read    ─┐
request ─┴→  f(rows)   =   f(row), row by row   =   by hand, row by row
"""

from __future__ import annotations

import tempfile
import uuid
from datetime import datetime
from decimal import Decimal as Exact
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.instants import moment
from tests.client.on_demand_views import (
    REQUEST,
    Computed,
    answers,
    mixed,
    spine_of,
)
from tests.client.test_law import ENTITIES, PROFILES, in_order
from tests.infra.valkey import Valkey
from tests.laws.world import EVENTS, MIDNIGHT_US, Event

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from(ENTITIES),
            "number": st.none() | st.integers(-(2**40), 2**40),
            "share": st.none() | st.floats(-1e9, 1e9) | st.just(float("nan")),
            "price": st.none() | st.decimals(-1000, 1000, places=2),
            "agreed": st.none() | st.booleans(),
            "said": st.none() | st.text("abé", max_size=3),
            "since": st.none() | st.integers(0, 2 * 10**15).map(moment),
        }
    ),
    min_size=1,
    max_size=9,
)
INPUTS = [f"everything@1:{name}" for name in mixed.arguments() if name != "city"] + ["profile@1:city", "profile@1:age"]


@settings(max_examples=25)
@given(events=EVENTS, profiles=PROFILES, rows=ROWS, after=st.integers(1, 10**10))
def test_every_way_computes_the_same_row_by_row(
    valkey: Valkey, events: list[Event], profiles: list[dict[str, Any]], rows: list[dict[str, Any]], after: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = Computed(valkey.url, Path(folder), f"computed-{uuid.uuid4().hex[:8]}")
        world.stream(world.archive(events))
        world.publish_profile(in_order(profiles))
        at = moment(max([MIDNIGHT_US + 2 * 86_400_000_000, *(event.ts for event in events)]) + after)
        online = world.store.get_online_features("computed@1", entity_rows=rows, at=at)
        names = [*online.features]
        together = answers(online, names)
        alone = [world.store.get_online_features("computed@1", entity_rows=[row], at=at) for row in rows]
        assert together == {name: [answers(one, names)[name][0] for one in alone] for name in names}
        training = world.store.get_historical_features(
            spine_of(rows, at), features="computed@1", with_statuses=True
        ).to_arrow()
        bare = world.store.get_historical_features(spine_of(rows, at), features="computed@1").to_arrow()
        world.store.write_historical_features(
            spine_of(rows, at), features="computed@1", with_statuses=True, out=f"{folder}/out.parquet"
        )
        inputs = world.store.get_online_features(INPUTS, entity_rows=rows, at=at).to_dict()
        world.close()
        for name in names:
            statuses = training[f"{name}__status"].to_pylist()
            assert together[name] == [*zip(training[name].to_pylist(), statuses, strict=True)], name
            assert bare[name].equals(training[name]), name
        assert pq.read_table(f"{folder}/out.parquet").select(names).equals(training.select(names))
    check_by_hand(rows, inputs, together, at)


def check_by_hand(
    rows: list[dict[str, Any]], inputs: dict[str, list[Any]], found: dict[str, list[Any]], at: datetime
) -> None:
    """What the functions say, in Python's arithmetic and one row after another."""
    for number, row in enumerate(rows):
        one = {name: values[number] for name, values in inputs.items()}
        mine = {name: found[name][number] for name in found}
        if None in [row[name] for name in REQUEST] or np.isnan(row["share"]):
            assert mine["ratio"] == (-1.0, "DEFAULT_MISSING")
            assert mine["curve"] == mine["point"] == (None, "DEFAULT_MISSING")
            assert mine["lengths"] == ([], "DEFAULT_MISSING")
        else:
            divided = None if not row["price"] else float(one["Sum_money_24h"]) / float(row["price"])
            assert mine["ratio"] == ((divided, "PRESENT") if row["price"] else (-1.0, "DEFAULT_ERROR"))
            assert mine["difference"] == (row["number"] - one["Sum_whole_1h"], "PRESENT")
            assert mine["is_same"] == (one["Last_flag_lifetime"] == row["agreed"], "PRESENT")
            assert mine["later"] == (max(one["Last_moment_lifetime"], row["since"]), "PRESENT")
            assert mine["sentence"] == (f"{one['Last_word_lifetime']} {row['said']} {one['city']}", "PRESENT")
            assert mine["lengths"] == ([len(one["LastK_whole_lifetime"]), len(row["said"])], "PRESENT")
            assert mine["point"] == ([row["share"], float(row["price"])], "PRESENT")
            assert mine["hour"] == (at.hour, "PRESENT")
            total = Exact(repr(float(one["Sum_money_24h"]) + float(row["price"]))).quantize(Exact("0.01"))
            assert mine["total"] == (total, "PRESENT")
        if one["age"] is None:
            assert (mine["aged"], mine["share_of_age"]) == ((None, "DEFAULT_MISSING"), (0.5, "DEFAULT_MISSING"))
        elif one["age"] < 0:
            assert mine["aged"] == (None, "DEFAULT_ERROR")
