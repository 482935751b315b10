"""Every on-demand view that is refused, with the exact sentence."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from forebay import Feature, FeatureService, Float64, List, Median, OnDemandView, String, on_demand
from forebay.errors import DefinitionError, UnknownNameError
from forebay.language.definitions import Definitions
from forebay.language.feature import FEATURES_MAX
from forebay.language.on_demand import REQUEST_MAX
from tests.language.refused import Cases, check, each
from tests.language.shop import FRAUD, SCORE, SPEND, but

RATIO = Feature("ratio", Float64, default=1.0)


def ratio(paid_24h: Any, amount: Any) -> Any:
    return amount / paid_24h


def keyed(user_id: Any, paid_24h: Any) -> Any:
    return paid_24h


def declared(function: Callable[..., Any] = ratio, **fields: Any) -> OnDemandView:
    given = {"version": 1, "inputs": [SPEND], "request": {"amount": Float64}, "features": [RATIO]}
    return on_demand(**{**given, **fields})(function)


ON_DEMAND = declared()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "amuont": lambda amuont: 0,
    "defaulted": lambda amount, paid_24h=1: 0,
    "starred": lambda amount, *rest: 0,
    "named": lambda amount, **rest: 0,
    "nothing": lambda amount: 0,
    "without amount": lambda paid_24h: 0,
    "score": lambda score, amount: 0,
}
V = "View '<lambda>'"

CASES: Cases = {
    "a parameter that is nothing": (
        lambda: declared(FUNCTIONS["amuont"]),
        (
            f"{V}: its function takes 'amuont', which is no feature of its inputs and no column of its request. "
            "Did you mean 'amount'?"
        ),
    ),
    "a parameter with a default": (
        lambda: declared(FUNCTIONS["defaulted"]),
        f"{V}: its function takes paid_24h=1; expected plain names of inputs, of request columns, or 'event_timestamp'",
    ),
    "any number of parameters": (
        lambda: declared(FUNCTIONS["starred"]),
        f"{V}: its function takes *rest; expected plain names of inputs, of request columns, or 'event_timestamp'",
    ),
    "any names": (
        lambda: declared(FUNCTIONS["named"]),
        f"{V}: its function takes **rest; expected plain names of inputs, of request columns, or 'event_timestamp'",
    ),
    "an input of which nothing is taken": (
        lambda: declared(FUNCTIONS["nothing"]),
        f"{V}: its function takes nothing of input 'spend@1'; leave it out",
    ),
    "a request column that is not taken": (
        lambda: declared(FUNCTIONS["without amount"]),
        f"{V}: its request has 'amount', which its function does not take; leave it out",
    ),
    "a name in two inputs": (
        lambda: declared(FUNCTIONS["score"], inputs=[SCORE, but(SCORE, version=2)]),
        f"{V}: 'score' is in score@1 and in score@2; select what is meant, e.g. view['score'], or rename the request's",
    ),
    "a name in an input and in the request": (
        lambda: declared(request={"amount": Float64, "paid_24h": Float64}),
        (
            "View 'ratio': 'paid_24h' is in spend@1 and in the request; select what is meant, e.g. view['paid_24h'], "
            "or rename the request's"
        ),
    ),
    "inputs that are no list": (
        lambda: declared(inputs=SPEND),
        f"View 'ratio': inputs={SPEND!r} is not a list; write e.g. inputs=[view, other['score']]",
    ),
    "an input that is no view": (
        lambda: declared(inputs=["spend"]),
        "View 'ratio': input 'spend' is not a view or a selection such as view['score']",
    ),
    "an input that is a service": (
        lambda: declared(inputs=[FRAUD]),
        f"View 'ratio': input {FRAUD!r} is not a view or a selection such as view['score']",
    ),
    "an input on demand": (
        lambda: declared(inputs=[ON_DEMAND]),
        (
            "View 'ratio': input 'ratio@1' is an on-demand view, and nothing is computed of those; call "
            "its function in "
            "this one, or take its inputs"
        ),
    ),
    "a selection of one on demand": (
        lambda: declared(inputs=[ON_DEMAND["ratio"]]),
        (
            "View 'ratio': input 'ratio@1' is an on-demand view, and nothing is computed of those; call "
            "its function in "
            "this one, or take its inputs"
        ),
    ),
    "a request that is no dictionary": (
        lambda: declared(request=["amount"]),
        "View 'ratio': request=['amount'] is not a dictionary; write e.g. request={'amount': Float64}",
    ),
    "a request of lists": (
        lambda: declared(request={"amount": List(Float64)}),
        (
            f"View 'ratio': request column 'amount' is of type {List(Float64)!r}; "
            "expected a type such as Float64 or String"
        ),
    ),
    "a request by the name of a type": (
        lambda: declared(request={"amount": "Float64"}),
        "View 'ratio': request column 'amount' is of type 'Float64'; expected a type such as Float64 or String",
    ),
    "too many request columns": (
        lambda: declared(request={f"r{n}": String for n in range(REQUEST_MAX + 1)}, inputs=[SPEND["paid_24h"]]),
        (
            "View 'ratio': its function takes 'amount', which is no feature of its inputs and no column of "
            "its request. "
            "Known: 'event_timestamp', 'paid_24h', 'r0', 'r1', 'r10', 'r100', 'r11', 'r12', …."
        ),
    ),
    "no features": (lambda: declared(features=[]), f"View 'ratio' has 0 features; expected 1 to {FEATURES_MAX}"),
    "a feature of another kind": (
        lambda: declared(features=[SPEND]),
        f"View 'ratio': {SPEND!r} is not a Feature; expected e.g. Feature('ratio', Float64, default=1.0)",
    ),
    "two features of one name": (
        lambda: declared(features=[RATIO, RATIO]),
        "View 'ratio' has two features named 'ratio'; give one another name",
    ),
    "a feature that is asked for": (
        lambda: declared(features=[but(RATIO, name="amount")]),
        "View 'ratio': feature 'amount' is also a column of its request; choose another name",
    ),
    "a feature that is a key": (
        lambda: declared(features=[but(RATIO, name="user_id")]),
        "View 'ratio': feature 'user_id' is also a key of its inputs; choose another name",
    ),
    "a request column that is a key": (
        lambda: on_demand(version=1, inputs=[SPEND], request={"user_id": String}, features=[RATIO])(keyed),
        "View 'keyed': request column 'user_id' is a key of its inputs; choose another name",
    ),
    "a function in another decorator": (
        lambda: declared(wraps(ratio)(lambda paid_24h, amount: 0)),
        (
            "View 'ratio': its function is wrapped by another decorator, whose code no fingerprint would hold; do what "
            "that does in the function"
        ),
    ),
    "no function": (
        lambda: declared(None),
        "on_demand(…) was given None; expected a function: def <name>(…)",
    ),
    "a statistical default": (
        lambda: declared(features=[but(RATIO, default=Median(over="30d", otherwise=0))]),
        (
            "View 'ratio': feature 'ratio' has the default Median over 30d, a statistic of stored values, "
            "and nothing of "
            "an on-demand view is stored; name a value"
        ),
    ),
    "a version": (lambda: declared(version=0), "View 'ratio': version=0; expected a whole number from 1"),
    "an owner": (lambda: declared(owner=3), "View 'ratio': owner=3 is not a text"),
    "a feature that it has not": (
        lambda: ON_DEMAND["rate"],
        "View 'ratio@1' has no feature 'rate'. Did you mean 'ratio'?",
    ),
    "called like a view": (
        lambda: Definitions.of(but(ON_DEMAND, name="spend")),
        (
            "A view and an on-demand view are both called 'spend@1': on-demand view 'spend@1' in argument "
            "1 and argument 1. "
            "Rename one"
        ),
    ),
    "two of one name": (
        lambda: Definitions.of(ON_DEMAND, but(ON_DEMAND, code="another")),
        (
            "Two different definitions are called on-demand view 'ratio@1': argument 1 and argument 2. "
            "Give one another "
            "name or version"
        ),
    ),
    "in a service with a feature of its name": (
        lambda: FeatureService("s", version=1, features=[ON_DEMAND, but(ON_DEMAND, version=2)]),
        (
            "FeatureService 's': feature 'ratio' comes from 'ratio@1' and 'ratio@2'; select the features "
            "you need, e.g. "
            "view['score'], or rename one"
        ),
    ),
}


@each(CASES)
def test_a_wrong_one_is_told_what_where_and_what_to_do(declare: Callable[[], Any], sentence: str) -> None:
    check(declare, sentence)


def test_too_many_columns_of_a_request() -> None:
    names = [f"r{n}" for n in range(REQUEST_MAX + 1)]
    with pytest.raises(DefinitionError, match="its request has 101 columns; expected at most 100"):
        OnDemandView("wide", 1, [], dict.fromkeys(names, String), [RATIO])


def test_what_it_takes_of_its_inputs_is_what_it_reads() -> None:
    assert [(one.view.key, one.names) for one in ON_DEMAND.inputs] == [("spend@1", ("paid_24h",))]
    assert ON_DEMAND.arguments() == {"paid_24h": (SPEND, "paid_24h")}
    assert not ON_DEMAND.takes_instant


def test_a_service_reads_the_inputs_of_what_it_lists() -> None:
    service = FeatureService("s", version=1, features=[ON_DEMAND, SCORE["score"]])
    assert [*service.views()] == ["spend@1", "score@1"]
    assert [key for key in ("ratio@1", "spend@1", "score@1", "spend@2") if service.pins(key)] == [
        "ratio@1",
        "spend@1",
        "score@1",
    ]
    code = Definitions.of(service)
    assert ([*code.views], [*code.on_demand]) == (["score@1", "spend@1"], ["ratio@1"])
    with pytest.raises(UnknownNameError, match=r"There is no view 'ratoi@1'\. Did you mean 'ratio@1'"):
        code.resolve(["ratoi@1:ratio"])
