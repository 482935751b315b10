"""Sessions as a source: what a view over them has, what is refused, and how a manifest holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from forebay import Count, Decimal, Int64, Last, Sessionize, String, Timestamp, WindowedView
from forebay.errors import DefinitionError
from forebay.instants import HOUR_US, MINUTE_US
from forebay.language.definitions import Definitions
from forebay.language.fingerprint import fingerprint, used_columns
from forebay.language.manifest import describe, from_manifest, to_manifest
from tests.language.refused import view
from tests.language.shop import PEOPLE, SCORE, SHOP, SPEND, USER, VISITS, but

CHAIN = (
    " is a view. A view has no events: its values change while nothing happens, as windows move on, so what is "
    "aggregated of them would depend on when it was looked at. Aggregate the events of its source, count sessions with "
    "Sessionize, or combine values in a batch view"
)


def sessions(**fields: Any) -> Sessionize:
    return Sessionize(**{"source": SHOP, "gap": "30m", "longest": "12h", **fields})


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "gap": (lambda: sessions(gap="soon"), "Sessionize 'shop_sessions': gap: 'soon'"),
    "gap too long": (
        lambda: sessions(gap="2d", longest="3d"),
        "Sessionize 'shop_sessions': gap='2d' is longer than 1d; events of sessions that are not over are held online",
    ),
    "longest too long": (
        lambda: sessions(longest="32d"),
        (
            "Sessionize 'shop_sessions': longest='32d' is longer than 31d; events of sessions that are not over are "
            "held online"
        ),
    ),
    "longest shorter than gap": (
        lambda: sessions(longest="10m"),
        "Sessionize 'shop_sessions': longest='10m' is shorter than gap='30m'; expected e.g. gap='30m', longest='12h'",
    ),
    "of a view": (lambda: sessions(source=SPEND), "Sessionize: source='spend@1'" + CHAIN),
    "of sessions": (
        lambda: sessions(source=sessions()),
        "Sessionize: source='shop_sessions' is sessions; sessions of sessions are not supported: choose a longer gap",
    ),
    "of a table": (
        lambda: sessions(source=PEOPLE),
        "Sessionize: source='people' is a TableSource, whose rows are no events; read it in a batch view",
    ),
    "view of a view": (lambda: view(source=SPEND), "View 'v': source='spend@1'" + CHAIN),
    "view of a batch view": (lambda: view(source=SCORE), "View 'v': source='score@1'" + CHAIN),
    "view of features": (lambda: view(source=SPEND["paid_24h"]), "View 'v': source='spend@1'" + CHAIN),
    "view of a table": (
        lambda: view(source=PEOPLE),
        "View 'v': source='people' is a TableSource, whose rows are no events; read it in a batch view",
    ),
    "a column of the events": (
        lambda: view(Last("l", of="amount", windows=["1h"], default=0), source=sessions()),
        "View 'v': Last 'l' is of 'amount', which 'shop_sessions' does not have. Known: 'duration'",
    ),
    "a key that events do not have": (
        lambda: view(source=sessions(), entity=but(USER, keys={"users": String})),
        "View 'v': source 'shop' has no column 'users', a key of 'user'. Did you mean 'user_id'?",
    ),
    "sessions of another source": (
        lambda: view(sessions=sessions(source=but(SHOP, name="store"))),
        "View 'v': its sessions are of 'store'; give them as its source",
    ),
    "batch view of sessions": (
        lambda: but(SCORE, sources=[sessions()]),
        (
            "View 'score': 'shop_sessions' is sessions, of which only a WindowedView can be; a batch view reads their "
            "events ('shop') and makes of them what it needs"
        ),
    ),
    "two of one name": (
        lambda: Definitions.of(VISITS, sessions(gap="20m")),
        (
            "Two different definitions are called sessions 'shop_sessions': view 'visits@1' in argument 1 and "
            "argument 2. Give one another name"
        ),
    ),
}


@pytest.mark.parametrize(("declare", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_declaration_is_told_what_where_and_what_to_do(declare: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        declare()
    assert str(caught.value).startswith(sentence)


def test_a_view_of_sessions_keeps_the_source_beneath_and_has_the_columns_of_sessions() -> None:
    made = WindowedView(
        "v",
        version=1,
        entity=USER,
        source=sessions(name="calls"),
        features=[
            Last("latest", of="session_start", windows=["7d"], default=None),
            Count("n", windows=["7d"], default=0),
        ],
    )
    assert (made.source, made.source_name, made.timestamp) == (SHOP, "calls", "ts")
    assert made.sessions is not None
    assert (made.sessions.gap_us, made.sessions.reach_us) == (30 * MINUTE_US, 12 * HOUR_US + 30 * MINUTE_US)
    kinds = {name: made.column(name) for name in ("session_start", "session_end", "duration", "events", "amount")}
    assert kinds == {
        "session_start": Timestamp,
        "session_end": Timestamp,
        "duration": Decimal(6),
        "events": Int64,
        "amount": None,
    }
    assert used_columns(made) == ["event_id", "user_id", "ts"]


def test_a_manifest_holds_sessions_within_their_view() -> None:
    packed = {"source": "shop", "gap": "30m", "longest": "12h", "name": "shop_sessions"}
    assert describe(VISITS)["sessions"] == packed
    assert describe(VISITS)["source"] == "shop"
    back = from_manifest(to_manifest(Definitions.of(VISITS)))
    assert back.views["visits@1"] == VISITS
    assert list(back.sources) == ["shop"]
    assert fingerprint(back.views["visits@1"]) == fingerprint(VISITS) == "32c633994754e18a"


def test_what_sessions_square_is_no_limit_of_the_events() -> None:
    """`duration` of a session is no column of the source, whatever that calls its own."""
    schema = {**SHOP.schema, "duration": Int64}
    visits = but(VISITS, source=but(VISITS.sessions, source=but(SHOP, schema=schema)))
    assert Definitions.of(visits).limits("shop") == {}
