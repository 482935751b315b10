"""What a source does not keep goes, with what was made of it, and nothing that a window still needs.

day        0         10        20        30        40
sales      ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ●      stream, watermark on day 40
kept                           [─── keep = 20d ────]
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from forebay import BatchView, Count, Decimal, Feature, Int64, Last, Sessionize, Sum, WindowedView, batch_view
from forebay.backfill.batch_view import compute_batch_view
from forebay.backfill.gaps import gap
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.calls.keyed import Keyed
from forebay.errors import DefinitionError, RequestError
from forebay.history import archived
from forebay.history.historical import answers
from forebay.ingest.batch import INSTANT, MALFORMED, DeadLetter
from forebay.instants import DAY_US, day_text
from forebay.language.definitions import Definitions
from forebay.offline.retention import Removed, remove_old, remove_superseded
from forebay.offline.tables import OfflineStore
from tests.backfill.shop import sales, tiers, user
from tests.backfill.world import World, day, sale, some_sales

KEPT = msgspec.structs.replace(sales, keep="20d")
USERS = ["u1", "u2", "u3", "u5"]


def view_of(version: int = 1, window: str = "7d") -> WindowedView:
    return WindowedView(
        "kept_sales",
        version,
        entity=user,
        source=KEPT,
        features=[
            Count("bought", windows=["24h", window], default=0),
            Sum("spent", of="amount", windows=[window], default=0),
            Last("last_amount", of="amount", windows=[window], default=0),
        ],
    )


VIEW = view_of()


def remove(store: OfflineStore, *views: WindowedView, dry_run: bool = False) -> Removed:
    removed = remove_old(store, Definitions.of(*(views or (VIEW,))), KEPT, dry_run=dry_run)
    assert removed is not None
    return removed


def trained(store: OfflineStore, at_us: int, view: WindowedView = VIEW) -> list[list[Any]]:
    keyed = Keyed(USERS, np.arange(len(USERS)))
    columns = answers(store, view, keyed, np.full(len(USERS), at_us), list(view.outputs()), known=False)
    return [column.to_python() for column in columns]


def streamed(world: World, days: int = 40, folded: int = 40) -> None:
    world.stream([*some_sales(400, days), sale(9_000, day(days, 1))])
    fold_dates(world.store, VIEW, day(0), day(folded))


def test_old_events_and_their_tiles_go_and_every_answer_stays(any_world: World) -> None:
    world, store = any_world, any_world.store
    streamed(world)
    positions, at_us = store.archive(KEPT).positions(), day(40, 2)
    store.repairs().append([("sales", day_text(day(3)), "late"), ("sales", day_text(day(33)), "late")], day(40))
    letters = [DeadLetter("sales", "0", 10_000 + n, MALFORMED, "", b"{", 1) for n in range(2)]
    store.dead_letters().append(letters[:1], day(5))
    store.dead_letters().append(letters[1:], day(39))
    before = {at: trained(store, at) for at in (day(28, 3), day(35), at_us)}
    would = remove(store, dry_run=True)
    assert store.archive(KEPT).retained_us() is None, "a dry run changes nothing"
    done = remove(store)
    assert would == done
    assert (done.kept_from, done.remark) == (day_text(day(20)), "20d before its newest events")
    assert done.rows.keys() == {"events/sales", f"tiles/{VIEW.key}"}
    for table in (store.archive(KEPT).table, store.tiles(VIEW).table):
        assert min(table.rows_by_date()) == day_text(day(20))
    assert store.archive(KEPT).positions() == positions
    assert store.repairs().scan("sales")["day"].to_pylist() == [day_text(day(33))]
    assert store.dead_letters().scan("sales")["source_offset"].to_pylist() == [10_001]
    assert {at: trained(store, at) for at in before} == before
    assert (store.tiles(VIEW).behind(store.archive(KEPT).events_by_date()), gap(store, VIEW, day(40)).unfolded) == (
        {},
        (),
    )
    report = publish_view(world.redis, world.namespace, store, VIEW)
    assert report.cut_us == day(40)
    assert world.online(VIEW, USERS, day(40)) == world.expected(VIEW, USERS, day(40))
    assert remove(store).rows == {}, "once more removes nothing"


def test_what_a_removed_event_decides_is_refused_and_never_answered(world: World) -> None:
    """
    day      13        20        27.. (+ hop)
    kept                [
    7d window           [═══════)                  the first instant whose window is whole
    """
    streamed(world)
    expected = trained(world.store, day(20) + 7 * DAY_US + 3 * 3_600_000_000)
    remove(world.store)
    assert trained(world.store, day(20) + 7 * DAY_US + 3 * 3_600_000_000) == expected
    with pytest.raises(RequestError, match=r"keeps those from 2024-01-21.* on; ask for instants that are 1s later"):
        trained(world.store, day(20) + 7 * DAY_US + 3_600_000_000 - 1)
    with pytest.raises(RequestError, match="View 'kept_sales@1' needs the events from"):
        trained(world.store, day(3))


def test_events_that_are_removed_while_they_are_read_are_missed_and_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed(world)
    select = archived.Selecting

    def meanwhile(*arguments: Any) -> Any:
        remove(OfflineStore(str(world.store.location.url)))
        return select(*arguments)

    monkeypatch.setattr(archived, "Selecting", meanwhile)
    with pytest.raises(RequestError, match="needs the events from"):
        trained(world.store, day(10))


def test_a_view_whose_days_are_not_folded_holds_its_windows_back(world: World) -> None:
    """
    day      0    8        16             40
    folded   ■■■■■■■■■■■■■■□□□□□□□□□□□□□□□      the next publication moves the cut from 16 on
    needed        [─ 7d 3h ┤
    """
    streamed(world, folded=16)
    done = remove(world.store)
    assert (done.kept_from, VIEW.key in done.remark) == (day_text(day(8)), True)
    other = view_of(2)
    fold_dates(world.store, other, day(0), day(40))
    assert remove(world.store, other).kept_from == day_text(day(20)), "the other view's days are not asked about"
    fold_dates(world.store, VIEW, day(16), day(40))
    assert remove(world.store).kept_from == day_text(day(20))


def test_a_new_version_is_published_once_its_windows_are_whole(world: World) -> None:
    streamed(world)
    remove(world.store)
    new = view_of(2, "10d")
    fold_dates(world.store, new, day(20), day(25))
    report = publish_view(world.redis, world.namespace, world.store, new)
    assert (report.cut_us, "keeps events from 2024-01-21 on" in report.remark) == (None, True)
    fold_dates(world.store, new, day(25), day(40))
    assert publish_view(world.redis, world.namespace, world.store, new).cut_us == day(40)
    assert world.online(new, USERS, day(40)) == world.expected(new, USERS, day(40))


def test_without_a_stream_time_is_that_of_the_newest_day(world: World) -> None:
    world.load([sale(number, day(number, 5)) for number in range(30)])
    assert remove(world.store).kept_from == day_text(day(10)), "30 days that are over, and not the wall clock"
    assert sorted(world.store.archive(KEPT).events_by_date())[0] == day_text(day(10))


def test_nothing_is_lost_beside_writers_and_late_events_go_the_next_time(world: World) -> None:
    streamed(world)
    url = world.store.location.url

    def write() -> None:
        world.stream([sale(20_000 + n, day(40, 2), "u2") for n in range(10)])
        world.stream([sale(20_100, day(2), "u2")])  # long ago

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(write), *(pool.submit(remove, OfflineStore(str(url))) for _ in range(2))]
        for one in done:
            one.result()
    remove(world.store)
    rows = world.store.archive(KEPT).scan(["event_id", "ts"])
    assert set(rows["event_id"].to_pylist()) >= {f"e{20_000 + n:06d}" for n in range(10)}
    assert "e020100" not in rows["event_id"].to_pylist()
    assert world.store.archive(KEPT).next_offset("0") == 401 + 11


def test_a_partition_of_a_batch_view_that_reads_removed_events_is_refused(world: World, tmp_path: Path) -> None:
    @batch_view(entity=user, version=1, sources=[KEPT], reach="3d", features=[Feature("spent", Decimal(2), default=0)])
    def kept_spending(context: Any, sales: Any) -> Any:
        return context.sql("SELECT user_id, sum(amount) AS spent, {end} AS event_timestamp FROM sales GROUP BY ALL")

    streamed(world)
    remove(world.store)
    compute_batch_view(world.store, kept_spending, day(23), day(25), home=tmp_path, now_us=day(41))
    with pytest.raises(RequestError, match="'kept_spending@1', partition 2024-01-11, needs the events from 2024-01-09"):
        compute_batch_view(world.store, kept_spending, day(10), day(11), home=tmp_path, now_us=day(41))


def test_rows_that_were_replaced_are_kept_as_long_as_the_view_says(any_world: World) -> None:
    """
    computed      day 10       20       30        of one partition: 1, 2, 3
    kept from          20 ─────────────────▸     at day 25: what was replaced on day 20 goes on the 26th
    """
    view = BatchView(
        "scores", 1, user, [tiers], [Feature("score", Int64, default=0)], keep="5d", history_start="2024-01-01"
    )
    store = any_world.store
    for score, created in ((1, 10), (2, 20), (3, 30)):
        row = {"user_id": ["u1"], "score": [score]}
        instants = {"event_timestamp": day(1), "created_timestamp": day(created), "partition_start": day(0)}
        columns = row | {name: pa.array([us], INSTANT) for name, us in instants.items()}
        store.rows(view).overwrite(day(0), day(1), pa.table(columns), day(created))

    def known(at_us: int) -> list[Any]:
        return answers(store, view, Keyed(["u1"], np.zeros(1, np.int64)), np.array([at_us]), ["score"], known=True)[
            0
        ].to_python()

    assert [known(day(at)) for at in (11, 25, 31)] == [[1], [2], [3]]
    would = remove_superseded(store, view, day(26), dry_run=True)
    assert (would, remove_superseded(store, view, day(26))) == (would, would)
    assert would is not None
    assert would.rows == {f"superseded/{view.key}": 1}
    assert [known(day(at)) for at in (25, 31)] == [[2], [3]]
    with pytest.raises(RequestError, match=r"What was known of view 'scores@1' at 2024-01-12.* is not kept"):
        known(day(11))


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: view_of(window="20d"), "its longest window, a day and the lateness are"),
        (lambda: WindowedView("all", 1, user, KEPT, [Count("n", windows=[None], default=0)]), "has a lifetime"),
        (
            lambda: WindowedView(
                "visits",
                1,
                user,
                Sessionize(KEPT, gap="30m", longest="12h"),
                [Count("n", windows=["1d"], default=0)],
            ),
            "is of sessions",
        ),
        (
            lambda: BatchView("seen", 1, user, [KEPT], [Feature("n", Int64, default=0)]),
            "say how far back it reads",
        ),
        (lambda: msgspec.structs.replace(sales, keep="long"), "keep: "),
    ],
)
def test_what_needs_more_than_is_kept_cannot_be_declared(declare: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(said)):
        declare()


def test_a_lifetime_that_was_declared_after_events_were_removed_is_refused(world: World) -> None:
    streamed(world)
    remove(world.store)
    whole = WindowedView("whole", 1, user, sales, [Count("n", windows=[None], default=0)])
    with pytest.raises(RequestError, match="needs all events of source 'sales'"):
        trained(world.store, day(40), whole)
    fold_dates(world.store, whole, day(0), day(40))
    assert publish_view(world.redis, world.namespace, world.store, whole).cut_us is None
