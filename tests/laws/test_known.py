"""What was known at an instant == the oracle over the events that had arrived by then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forebay.core.known import answer_known, unarrived
from forebay.core.layout import Layout
from forebay.instants import DAY_US, HOUR_US, SECOND_US
from tests.laws.test_sweep import many
from tests.laws.world import COLUMNS, EVENTS, INSTANTS, MIDNIGHT_US, VIEW, Event, as_events, check

LAYOUT = Layout.of(VIEW)
NOTHING: dict[str, object] = dict.fromkeys(COLUMNS)
LAGS = st.one_of(
    st.sampled_from([-1, 0, 1, 2, SECOND_US, HOUR_US, 12 * HOUR_US, DAY_US, 400 * DAY_US]),
    st.integers(0, 3 * DAY_US),
)


@settings(max_examples=80, deadline=None)
@given(EVENTS, st.data(), st.lists(INSTANTS, min_size=1, max_size=6), st.booleans())
@example([Event("ann", MIDNIGHT_US, "a", NOTHING)] * 2, None, [MIDNIGHT_US, MIDNIGHT_US + 1, MIDNIGHT_US + 2], False)
def test_what_was_known_is_the_oracle_of_what_had_arrived(
    events: list[Event], data: st.DataObject | None, instants_us: list[int], at_once: bool
) -> None:
    """Events arrive one by one with their lags, or all at one instant, as history that is loaded does."""
    lags = [data.draw(LAGS) if data else i for i, _ in enumerate(events)]
    loaded_us = data.draw(INSTANTS) if data else 0
    lagged = [event.ts + lag for event, lag in zip(events, lags, strict=True)]
    arrived = [loaded_us] * len(events) if at_once else lagged
    instants_us = instants_us + [us + d for us in arrived[:3] for d in (-1, 0)]
    batch = as_events(events)
    batch = replace(batch, offset=np.array(arrived, np.int64))
    rows = [(key, us) for us in instants_us for key in ("bob", "nobody", "ann", "eve")]
    names = batch.keys.to_pylist()
    code = np.array([names.index(key) if key in names else -1 for key, _ in rows], np.int64)
    columns = answer_known(LAYOUT, batch, code, np.array([us for _, us in rows], np.int64))
    for i, (entity, at_us) in enumerate(rows):
        known = [event for n, event in enumerate(events) if arrived[n] <= at_us]
        check([column.take(np.array([i])) for column in columns], known, [(entity, at_us)])


@pytest.mark.parametrize("seed", range(2))
def test_many_rows_that_know_different_stretches_are_each_answered_alone(seed: int) -> None:
    """Of hundreds of rows at once, each is what it would be if it alone were asked of the events that it knows."""
    batch, code, at_us = many(seed, 2_000)
    rng = np.random.default_rng(seed)
    batch = replace(batch, offset=batch.ts + rng.choice([1, 10**6, 10**9, 10**11], len(batch)))
    late = unarrived(LAYOUT, batch, code, at_us)
    assert late.sum() > 100
    together = answer_known(LAYOUT, batch, code, at_us)
    for i in rng.choice(np.flatnonzero(late), 12, replace=False):
        kept = np.flatnonzero(batch.offset <= at_us[i])
        known = replace(
            batch,
            code=batch.code[kept],
            ts=batch.ts[kept],
            ids=batch.ids[kept],
            offset=np.full(len(kept), -(2**62)),
            columns={name: column.take(kept) for name, column in batch.columns.items()},
        )
        alone = answer_known(LAYOUT, known, code[i : i + 1], at_us[i : i + 1])
        for one, all_of_them in zip(alone, together, strict=True):
            assert one.status[0] == all_of_them.status[i], one.feature.name
            if one.values.dtype.kind != "f":
                assert one.values[0] == all_of_them.values[i], one.feature.name
