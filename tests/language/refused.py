"""Declarations that are refused, and the exact sentence of each: what is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from forebay import Count, EventSource, WindowedView, batch_view
from forebay.errors import DefinitionError, UnknownNameError
from tests.language.shop import PEOPLE, SCHEMA, SCORE, SHOP, USER, but

Cases = Mapping[str, tuple[Callable[[], Any], str]]
"""By what is wrong: the declaration, and what is said of it."""


def source(**fields: Any) -> EventSource:
    return EventSource(**{"name": "shop", "schema": SCHEMA, "timestamp": "ts", "event_id": "event_id", **fields})


def view(*features: Any, **fields: Any) -> WindowedView:
    given = list(features) or [Count("n", windows=["1h"], default=0)]
    return WindowedView(**{"name": "v", "version": 1, "entity": USER, "source": SHOP, "features": given, **fields})


def batch(**fields: Any) -> Any:
    return but(SCORE, **fields)


def declared(function: Callable[..., Any], **fields: Any) -> Any:
    given = {"entity": USER, "version": 1, "sources": [PEOPLE], "features": SCORE.features, "partitions": "none"}
    return batch_view(**{**given, **fields})(function)


def each(cases: Cases) -> pytest.MarkDecorator:
    """Runs a test, which is given `declare` and `sentence`, with each case."""
    return pytest.mark.parametrize(("declare", "sentence"), cases.values(), ids=cases.keys())


def check(declare: Callable[[], Any], sentence: str) -> None:
    """A wrong declaration is told what, where and what to do."""
    with pytest.raises((DefinitionError, UnknownNameError)) as caught:
        declare()
    assert str(caught.value) == sentence
