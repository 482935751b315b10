"""Every batch view and service that is refused, with the exact sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forebay import (
    Bool,
    Count,
    Feature,
    FeatureService,
    Float64,
    String,
)
from tests.language.refused import Cases, batch, check, declared, each
from tests.language.shop import PEOPLE, SPEND, but


def by_another_name(context: Any, persons: Any) -> Any:
    return persons


READ_FROM_NOWHERE: dict[str, Any] = {}
exec("def typed_in(context, people):\n    return people", READ_FROM_NOWHERE)

CASES: Cases = {
    # batch views
    "feature type": (
        lambda: Feature("f", "Float64", default=0),
        "Feature 'f' is of type 'Float64'; expected a type such as String, Int64 or Decimal(2)",
    ),
    "feature default": (
        lambda: Feature("f", Float64),
        "Feature 'f' names no default; say what an unknown entity gets, e.g. default=0 (or None for null)",
    ),
    "feature default of another type": (
        lambda: Feature("f", Bool, default=0),
        "Feature 'f': default 0 is not a Bool; expected true or false",
    ),
    "no feature": (
        lambda: batch(features=[Count("n", windows=["1h"], default=0)]),
        (
            f"View 'score': {Count('n', windows=['1h'], default=0)!r} is not a Feature; "
            "expected e.g. Feature('score', Float64, default=0.0)"
        ),
    ),
    "feature is a key": (
        lambda: batch(features=[Feature("user_id", String, default=None)]),
        "View 'score': feature 'user_id' is also a key of entity 'user'; choose another name",
    ),
    "no sources": (lambda: batch(sources=[]), "View 'score' has no sources; name what it reads"),
    "source alone": (
        lambda: batch(sources=PEOPLE),
        f"View 'score': sources={PEOPLE!r} is not a list; write e.g. sources=[weather]",
    ),
    "source by name": (
        lambda: batch(sources=["people"]),
        "View 'score': source 'people' is not an EventSource or TableSource",
    ),
    "source twice": (
        lambda: batch(sources=[PEOPLE, PEOPLE]),
        "View 'score' names a source twice: people, people",
    ),
    "partitions": (
        lambda: batch(partitions="weekly"),
        "View 'score': partitions='weekly'; expected one of 'hourly', 'daily', 'none'",
    ),
    "no history": (
        lambda: batch(sources=[PEOPLE]),
        "View 'score' has partitions but no history_start; write history_start='YYYY-MM-DD'",
    ),
    "history of a kind": (
        lambda: batch(history_start=2024),
        "View 'score': history_start=2024 is not a date; write YYYY-MM-DD",
    ),
    "parameters": (
        lambda: declared(by_another_name),
        (
            "View 'by_another_name': its function takes (context, persons); "
            "expected (context, people): the context, then its sources"
        ),
    ),
    "lambda": (
        lambda: declared(lambda context, people: people),
        "View '<lambda>': its code cannot be read; declare it by a function in a file: def <name>(…)",
    ),
    "typed in": (
        lambda: declared(READ_FROM_NOWHERE["typed_in"]),
        "View 'typed_in': its code cannot be read; declare it by a function in a file: def <name>(…)",
    ),
    # services
    "service of nothing": (
        lambda: FeatureService("s", version=1, features=[]),
        "FeatureService 's' has no features; name views or view['feature']",
    ),
    "service of names": (
        lambda: FeatureService("s", version=1, features=["spend@1"]),
        "FeatureService 's': 'spend@1' is not a view or a selection such as view['score']",
    ),
    "service of one": (
        lambda: FeatureService("s", version=1, features=SPEND),
        f"FeatureService 's': features={SPEND!r} is not a list; write e.g. features=[view, other['score']]",
    ),
    "service with a name twice": (
        lambda: FeatureService("s", version=1, features=[SPEND, but(SPEND, version=2)["paid_24h"]]),
        (
            "FeatureService 's': feature 'paid_24h' comes from 'spend@1' and 'spend@2'; "
            "select the features you need, e.g. view['score'], or rename one"
        ),
    ),
}


@each(CASES)
def test_a_wrong_one_is_told_what_where_and_what_to_do(declare: Callable[[], Any], sentence: str) -> None:
    check(declare, sentence)
