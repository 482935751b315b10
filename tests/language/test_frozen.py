"""A definition is a value: nobody can change it, equal ones have one hash, and its defaults are as written."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from decimal import Decimal as Number
from typing import Any

import pytest

from forebay import Decimal, Entity, Feature, String, Sum, Timestamp, WindowedView
from forebay.core.layout import Layout
from forebay.errors import DefinitionError
from forebay.language.frozen import Frozen
from forebay.language.manifest import fingerprint
from tests.language.shop import FRAUD, PEOPLE, SCORE, SHOP, SPEND, USER, but

ALL = [USER, SHOP, PEOPLE, SPEND, SCORE, FRAUD]
CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda held: held.update(note=String),
    lambda held: held.setdefault("note", String),
    lambda held: held.pop("ts"),
    lambda held: held.popitem(),
    lambda held: held.clear(),
    lambda held: held.__setitem__("note", String),
    lambda held: held.__delitem__("ts"),
    lambda held: held.__ior__({"note": String}),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_definition_holds_cannot_be_changed(change: Callable[[dict[str, Any]], Any]) -> None:
    was = fingerprint(SPEND), fingerprint(SHOP)
    for held in (USER.keys, SHOP.schema, SPEND.derived, SPEND.tags, SCORE.tags, FRAUD.tags, PEOPLE.schema):
        with pytest.raises(TypeError, match="cannot be changed"):
            change(held)
    assert (fingerprint(SPEND), fingerprint(SHOP)) == was


def test_what_was_declared_with_may_be_changed_and_changes_nothing() -> None:
    keys, tags = {"user_id": String}, {"domain": "shop"}
    user, view = Entity("user", keys=keys), but(SPEND, tags=tags)
    keys["shop"] = String
    tags["domain"] = "risk"
    assert (user.keys, view.tags) == ({"user_id": String}, {"domain": "shop"})


@pytest.mark.parametrize("definition", ALL, ids=lambda definition: type(definition).__name__)
def test_equal_definitions_have_one_hash_also_when_they_come_from_elsewhere(definition: Any) -> None:
    for other in (copy.deepcopy(definition), pickle.loads(pickle.dumps(definition)), but(definition)):
        assert (other, hash(other)) == (definition, hash(definition))


def test_the_order_in_which_a_dictionary_is_written_is_no_difference() -> None:
    one, other = Frozen({"a": 1, "b": 2}), Frozen({"b": 2, "a": 1})
    assert (one, hash(one)) == (other, hash(other))
    assert one == {"a": 1, "b": 2}


def test_the_layout_of_equal_views_is_one() -> None:
    assert Layout.of(pickle.loads(pickle.dumps(SPEND))) is Layout.of(SPEND)
    assert Layout.of(but(SPEND, where=None)) is not Layout.of(SPEND)


@pytest.mark.parametrize("default", [0.005, "0.125", Number("1e-9"), -0.001])
def test_a_default_that_rounding_would_change_is_refused(default: Any) -> None:
    expected = f"default {default!r} is not a Decimal(2), which would make"
    with pytest.raises(DefinitionError) as refused:
        Feature("balance", Decimal(2), default=default)
    assert expected in str(refused.value)
    with pytest.raises(DefinitionError, match="View 'v': Sum 'paid': default"):
        WindowedView(
            "v",
            version=1,
            entity=USER,
            source=SHOP,
            features=[Sum("paid", of="amount", windows=["1h"], default=default)],
        )


@pytest.mark.parametrize("default", [0, 0.0, 0.1, "0.10", Number("0.1000"), -1.25, 1e3, None])
def test_a_default_that_is_the_same_number_at_another_scale_is_taken(default: Any) -> None:
    held = Feature("balance", Decimal(2), default=default).default
    assert held is None if default is None else held == Number(str(default))


def test_a_declaration_keeps_its_own_copy_of_what_it_was_given() -> None:
    keys = {"user_id": String}
    entity = Entity("user", keys=keys)
    keys["other"] = Timestamp
    assert entity.keys == {"user_id": String}


def test_a_default_takes_the_form_of_its_type() -> None:
    assert str(SPEND.outputs()["paid_24h"].default) == "0.50"
    assert type(SPEND.outputs()["net_mean_7d"].default) is float
    assert SCORE.outputs()["since"].default.tzinfo is not None
