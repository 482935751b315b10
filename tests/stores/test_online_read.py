"""Reading: one round trip, one instant, and every status said as it is."""

from __future__ import annotations

import numpy as np
import pytest
import redis

from forebay import EventSource, WindowedView
from forebay.core.codec import NO_CUT
from forebay.core.values import Status
from forebay.errors import FormatError, InstantTooEarlyError, RequestError, StoreUnavailableError
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from forebay.online import read as read_module
from forebay.online.keys import Keys
from forebay.online.lane import Lane, Stretch
from forebay.online.publish import publish_rows
from forebay.online.read import OnlineReader
from tests.infra.valkey import Valkey
from tests.stores.online_world import (
    ALL_SLOTS,
    MIDNIGHT_US,
    VIEWS,
    Order,
    as_events,
    ever,
    expected,
    lane_of,
    publish,
    purchases,
    read,
    recent,
    shop,
    stretch,
    values,
)
from tests.stores.test_online_publish import WEATHER, weather

ORDERS = [Order(("ann", "bob", "eve")[i % 3], MIDNIGHT_US + i * 20 * MINUTE_US, i, i) for i in range(30)]
LAST_US = ORDERS[-1].ts


def statuses(client: redis.Redis, namespace: str, view: WindowedView, entity: str, at_us: int) -> set[str]:
    found = OnlineReader(client, namespace).read([view], {view.key: [entity]}, at_us, 0)
    return {Status(int(column.status[0])).name for column in found.views[view.key].columns}


def calls(client: redis.Redis) -> dict[str, int]:
    return {name: stats["calls"] for name, stats in client.info("commandstats").items()}


def test_many_entities_of_many_views_are_one_round_trip(own_valkey: Valkey, namespace: str) -> None:
    with own_valkey.connect() as client, own_valkey.connect() as watcher:
        lane_of(client, namespace).commit([stretch(ORDERS)])
        publish(client, namespace, ORDERS, MIDNIGHT_US)
        publish_rows(client, namespace, WEATHER, weather([("ann", MIDNIGHT_US, 1, 2.0)]))
        keys = {key: ["ann", "bob", None, "eve", "ann", "nobody"] for key in (*VIEWS, WEATHER.key)}
        reader = OnlineReader(client, namespace)
        client.ping()
        watcher.ping()
        before = calls(watcher)
        found = reader.read([*VIEWS.values(), WEATHER], keys, None, LAST_US)
        after = calls(watcher)
        assert {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)} == {
            "cmdstat_mget": 1,
            "cmdstat_info": 1,
        }
        assert {key: len(view.columns[0]) for key, view in found.views.items()} == dict.fromkeys(keys, 6)


def test_rows_are_those_of_the_keys_in_their_order(client: redis.Redis, namespace: str) -> None:
    lane_of(client, namespace).commit([stretch(ORDERS)])
    asked = ["eve", None, "ann", "nobody", "eve"]
    rows = values(read(client, namespace, asked), recent)
    assert rows == [expected(ORDERS, recent, entity or "nobody", LAST_US + 1) for entity in asked]


def test_only_the_features_asked_for_are_answered_in_that_order(client: redis.Redis, namespace: str) -> None:
    lane_of(client, namespace).commit([stretch(ORDERS)])
    names = {recent.key: ["spend_24h", "orders_1h"]}
    found = OnlineReader(client, namespace).read([recent, ever], {key: ["ann"] for key in VIEWS}, None, 0, names)
    assert [column.feature.name for column in found.views[recent.key].columns] == ["spend_24h", "orders_1h"]
    assert len(found.views[ever.key].columns) == 6


def test_what_is_behind_each_row_is_told(client: redis.Redis, namespace: str) -> None:
    lane = lane_of(client, namespace)
    lane.commit([stretch(ORDERS[:10])])
    lane.commit([stretch(ORDERS[10:])])
    publish(client, namespace, [], MIDNIGHT_US, recent)
    found = read(client, namespace, ["ann", None])
    view = found.views[recent.key]
    assert view.commits.tolist() == [2, 0]
    assert view.cuts.tolist() == [MIDNIGHT_US, NO_CUT]
    assert view.watermarks.tolist() == [LAST_US, NO_CUT]
    assert found.views[ever.key].cuts.tolist() == [NO_CUT, NO_CUT]


def test_nothing_asked_is_nothing_answered(client: redis.Redis, namespace: str) -> None:
    found = OnlineReader(client, namespace).read([recent, WEATHER], {recent.key: [], WEATHER.key: [None]}, None, 5)
    assert found.instant_us == 5
    assert len(found.views[recent.key].columns[0]) == 0
    assert found.views[WEATHER.key].columns[0].status.tolist() == [Status.DEFAULT_MISSING]


def test_the_instant_is_the_wall_clock_or_just_after_what_is_read(client: redis.Redis, namespace: str) -> None:
    lane_of(client, namespace).commit([stretch(ORDERS)])
    reader = OnlineReader(client, namespace)
    assert reader.read([recent], {recent.key: ["ann"]}, None, LAST_US + 9).instant_us == LAST_US + 9
    ahead = reader.read([recent, ever], {recent.key: ["ann"], ever.key: ["eve"]}, None, MIDNIGHT_US)
    assert ahead.instant_us == LAST_US + 1
    publish_rows(client, namespace, WEATHER, weather([("JFK", LAST_US + 50, 1, 2.0)]))
    assert (
        reader.read([recent, WEATHER], {recent.key: ["ann"], WEATHER.key: ["JFK"]}, None, 0).instant_us == LAST_US + 50
    )


def test_no_live_read_is_of_an_instant_before_a_cut(client: redis.Redis, namespace: str) -> None:
    publish(client, namespace, [Order("ann", MIDNIGHT_US - DAY_US, 0)], MIDNIGHT_US)
    for entity in ("ann", "nobody"):
        assert read(client, namespace, [entity]).instant_us == MIDNIGHT_US


def test_an_earlier_instant_than_the_newest_event_is_historys(client: redis.Redis, namespace: str) -> None:
    lane_of(client, namespace).commit([stretch(ORDERS)])
    newest_us = max(order.ts for order in ORDERS if order.entity == "ann")
    with pytest.raises(InstantTooEarlyError, match=r"for entity 'ann': its newest event is of .* use feature_history"):
        read(client, namespace, ["nobody", "ann"], newest_us)
    assert values(read(client, namespace, ["ann"], newest_us + 1), recent) == [
        expected(ORDERS, recent, "ann", newest_us + 1)
    ]


def test_an_instant_before_the_cut_is_historys(client: redis.Redis, namespace: str) -> None:
    publish(client, namespace, [Order("ann", MIDNIGHT_US - DAY_US, 0)], MIDNIGHT_US)
    for entity in ("ann", "nobody"):
        with pytest.raises(InstantTooEarlyError, match=f"{entity}.* is published up to 2013-12-15T00:00:00Z"):
            read(client, namespace, [entity], MIDNIGHT_US - 1)
        read(client, namespace, [entity], MIDNIGHT_US)


def test_an_instant_before_a_row_is_historys(client: redis.Redis, namespace: str) -> None:
    publish_rows(client, namespace, WEATHER, weather([("JFK", MIDNIGHT_US, 1, 2.0)]))
    reader, keys = OnlineReader(client, namespace), {WEATHER.key: ["EWR", "JFK"]}
    with pytest.raises(InstantTooEarlyError, match=r"for entity 'JFK': its row is of 2013-12-15T00:00:00Z"):
        reader.read([WEATHER], keys, MIDNIGHT_US - 1, 0)
    assert reader.read([WEATHER], keys, MIDNIGHT_US, 0).instant_us == MIDNIGHT_US


def test_a_row_is_present_then_expired_and_an_unknown_one_missing(client: redis.Redis, namespace: str) -> None:
    publish_rows(client, namespace, WEATHER, weather([("JFK", MIDNIGHT_US, 1, 2.0), ("LGA", MIDNIGHT_US, 1, None)]))

    def wind(at_us: int) -> list[tuple[float, int]]:
        keys = {WEATHER.key: ["JFK", "LGA", "EWR"]}
        column = OnlineReader(client, namespace).read([WEATHER], keys, at_us, 0).views[WEATHER.key].columns[0]
        return list(zip(column.values.tolist(), column.status.tolist(), strict=True))

    missing, expired = (0.0, Status.DEFAULT_MISSING), (0.0, Status.DEFAULT_EXPIRED)
    assert wind(MIDNIGHT_US + 2 * DAY_US) == [(2.0, Status.PRESENT), missing, missing]
    assert wind(MIDNIGHT_US + 2 * DAY_US + 1)[0] == expired


def test_a_windowed_value_is_stale_once_its_stream_is_behind(client: redis.Redis, namespace: str) -> None:
    lane = lane_of(client, namespace)
    lane.commit([stretch(ORDERS)])
    assert statuses(client, namespace, recent, "bob", LAST_US + MINUTE_US) == {"PRESENT"}
    assert statuses(client, namespace, recent, "bob", LAST_US + MINUTE_US + 1) == {"STALE"}
    assert statuses(client, namespace, ever, "bob", LAST_US + 20 * HOUR_US) == {"PRESENT"}  # it declares no freshness
    nothing = as_events([])
    lane.commit([Stretch("0", 30, LAST_US + HOUR_US, dict.fromkeys(VIEWS, nothing))])  # a heartbeat
    assert "STALE" not in statuses(client, namespace, recent, "bob", LAST_US + 30 * MINUTE_US)


def test_the_slowest_partition_says_how_far_a_stream_is(client: redis.Redis, namespace: str) -> None:
    lane_of(client, namespace).commit(
        [stretch(ORDERS), stretch([Order("ann", MIDNIGHT_US, 0, partition="1")], partition="1")]
    )
    assert statuses(client, namespace, recent, "bob", LAST_US + SECOND_US) == {"STALE"}


def test_a_view_whose_stream_never_ran_is_as_fresh_as_its_cut(client: redis.Redis, namespace: str) -> None:
    publish(client, namespace, [Order("ann", MIDNIGHT_US - 10 * MINUTE_US, 0)], MIDNIGHT_US)
    assert statuses(client, namespace, recent, "ann", MIDNIGHT_US + MINUTE_US) == {"PRESENT"}
    assert statuses(client, namespace, recent, "ann", MIDNIGHT_US + MINUTE_US + 1) == {"STALE"}


def test_a_view_of_a_source_without_a_stream_is_never_stale(client: redis.Redis, namespace: str) -> None:
    fields = {name: getattr(shop, name) for name in shop.__struct_fields__ if name != "stream"}
    loaded = EventSource(**fields)
    view = WindowedView(
        "loaded", version=1, entity=recent.entity, source=loaded, features=recent.features, freshness="1m"
    )
    publish(client, namespace, [Order("ann", MIDNIGHT_US - MINUTE_US, 0)], MIDNIGHT_US, view)
    assert statuses(client, namespace, view, "ann", MIDNIGHT_US + 10 * MINUTE_US) == {"PRESENT"}


def test_without_a_stream_no_tiles_wait_and_retention_marks_nothing(client: redis.Redis, namespace: str) -> None:
    fields = {name: getattr(shop, name) for name in shop.__struct_fields__ if name != "stream"}
    view = WindowedView(
        "loaded",
        version=1,
        entity=recent.entity,
        source=EventSource(**fields),
        features=recent.features,
        retention="1m",
    )
    publish(client, namespace, [Order("ann", MIDNIGHT_US - MINUTE_US, 0)], MIDNIGHT_US, view)
    assert statuses(client, namespace, view, "ann", MIDNIGHT_US + 10 * MINUTE_US) == {"PRESENT"}


def test_a_ttl_expires_values_and_an_empty_window_is_missing(client: redis.Redis, namespace: str) -> None:
    brief = purchases("brief", ["1h", "24h"], ttl="2h")
    lane = Lane(client, namespace, [brief], ALL_SLOTS)
    lane.take_over()
    lane.commit([Stretch("0", 1, MIDNIGHT_US, {brief.key: as_events([Order("ann", MIDNIGHT_US, 0)])})])
    assert statuses(client, namespace, brief, "ann", MIDNIGHT_US + HOUR_US) == {"PRESENT"}
    assert statuses(client, namespace, brief, "ann", MIDNIGHT_US + 3 * HOUR_US) == {
        "DEFAULT_MISSING",
        "DEFAULT_EXPIRED",
    }
    assert statuses(client, namespace, brief, "ann", MIDNIGHT_US + 2 * DAY_US) == {"DEFAULT_MISSING"}


def test_tiles_of_another_definition_are_refused(client: redis.Redis, namespace: str) -> None:
    publish(client, namespace, [Order("ann", MIDNIGHT_US - MINUTE_US, 0)], MIDNIGHT_US)
    changed = purchases("recent", ["1h", "7d"])
    with pytest.raises(FormatError, match=r"'recent@1' .* publish the view again"):
        OnlineReader(client, namespace).read([changed], {changed.key: ["ann"]}, None, 0)


def test_a_read_has_a_limit(client: redis.Redis, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_module, "KEYS_MAX", 10)
    with pytest.raises(RequestError, match=r"at most 10\. Ask for fewer entities"):
        read(client, namespace, ["ann", "bob"])


def test_a_dead_server_is_one_clear_error(own_valkey: Valkey, namespace: str) -> None:
    with own_valkey.connect() as client:
        client.set_retry(None)  # type: ignore[arg-type]  # no retries: redis-py takes None, its types do not say so
        own_valkey.kill()
        with pytest.raises(StoreUnavailableError, match=r"Redis at 127\.0\.0\.1:\d+ cannot be reached"):
            read(client, namespace, ["ann"])


def test_a_late_pending_partial_and_a_rolled_up_one_are_one_value(client: redis.Redis, namespace: str) -> None:
    """Whether partials are pending or rolled up cannot be seen."""
    orders = [Order("ann", MIDNIGHT_US + (i * 7919 % 1440) * MINUTE_US, i, i) for i in range(80)]
    lane, keys = lane_of(client, namespace), Keys(namespace)
    seen = set()
    for i, order in enumerate(orders):
        lane.commit([stretch([order])])
        seen.add(
            (bool(client.exists(keys.pending(recent.key, "ann"))), bool(client.exists(keys.stream(recent.key, "ann"))))
        )
        found = read(client, namespace, ["ann"])
        assert values(found, recent) == [expected(orders[: i + 1], recent, "ann", found.instant_us)]
    assert seen == {(True, False), (True, True)}
    assert np.max(read(client, namespace, ["ann"]).views[recent.key].commits) == 80
