"""The commands about versions, as a person and a program use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from forebay import FeatureService, Median, Sum
from forebay.cli.app import app
from forebay.errors import ForebayError, RequestError
from tests.backfill.world import day, sale
from tests.client.test_versions import NEW, OLD
from tests.client.two_versions import FIRST, SECOND, V1, V2, Shop, version


@pytest.fixture
def shop(home: Path, online_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, place: str) -> Shop:
    """Two versions of a view and its service, streamed; the environment names it."""
    monkeypatch.setenv("FOREBAY_ONLINE_URL", online_url)
    monkeypatch.setenv("FOREBAY_NAMESPACE", namespace)
    made = Shop.at(home, online_url, namespace, place)
    made.apply(FIRST, SECOND)
    made.stream([*OLD, *NEW], V1, V2)
    return made


def run(*arguments: str) -> str:
    """What a command prints; what Forebay refuses is raised."""
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, ForebayError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def run_json(*arguments: str) -> Any:
    """The one document that a command prints."""
    return json.loads(run(*arguments, "--json"))


@pytest.mark.usefixtures("shop")
def test_compare_prints_what_differs_on_live_entities() -> None:
    found = run_json("compare", "user_sales@1", "user_sales@2")
    assert (found["entities"], found["only_before"], found["lacking"]) == (2, 1, [{"user_id": "u3"}])
    spent = next(one for one in found["features"] if one["name"] == "spent_lifetime")
    assert (spent["share_equal"], spent["largest_difference"]) == (0.5, 4.0)
    assert spent["examples"] == [{"entity": {"user_id": "u1"}, "before": 8.5, "after": 12.5}]
    shown = run("compare", "user_sales@1", "user_sales@2", "--sample", "10")
    assert "user_sales@1 → user_sales@2 of 2 live entities" in shown
    assert "user_id=u1: 8.50 → 12.50" in shown
    assert "1 more are in user_sales@1 alone: user_id=u3" in shown


def test_flip_says_what_it_did_and_how_to_go_back(shop: Shop) -> None:
    found = run_json("flip", "shop", "--to", "2")
    assert found == {"service": "shop", "before": 1, "after": 2, "number": 2}
    assert run_json("get", "shop", "user_id=u1")["features"]["bought_lifetime"]["value"] == 2
    assert "is the active version already" in run("flip", "shop", "--to", "2")
    assert "Back: forebay flip shop --to 2" in run("flip", "shop", "--to", "1")
    assert run_json("get", "shop", "user_id=u1")["features"]["bought_lifetime"]["value"] == 3
    third, later = version(3), FeatureService("shop", version=3, features=[version(3)])
    shop.apply(FIRST, SECOND, later)
    with pytest.raises(RequestError, match="or pass --anyway"):
        run("flip", "shop", "--to", "3")
    assert "shop is version 3 now" in run("flip", "shop", "--to", "3", "--anyway")
    assert third == later.features[0].view


def test_retire_counts_and_then_removes(shop: Shop) -> None:
    with pytest.raises(RequestError, match="it is deployed, and shop@1 pins it"):
        run("retire", "user_sales@1")
    shop.registry.flip("shop", 2)
    shop.apply(SECOND, V1)
    shop.apply(SECOND)
    planned = run_json("retire", "user_sales@1", "--dry-run")
    assert (planned["keys"]["p"], planned["removed"]) == (3, None)
    assert "online store" in run("retire", "user_sales@1", "--dry-run")
    removed = run_json("retire", "user_sales@1")
    assert removed == {**planned, "removed": {"keys": 3, "files": 0}}
    assert "Nothing is stored of user_sales@1." in run("retire", "user_sales@1")


def test_learn_shows_and_deploys_the_statistical_defaults(shop: Shop) -> None:
    features = [Sum("spent", of="amount", windows=[None], default=Median(over="3650d", otherwise=0))]
    view = msgspec.structs.replace(V1, name="spent", features=features)
    shop.apply(FIRST, SECOND, view)
    shop.stream([sale(9, day(3), "u9", "10.00")], V1, V2, view)
    shown = run_json("learn", "spent@1", "--dry-run")
    found = shown["learned"][0]
    assert (shown["manifest"], found["statistic"], found["value"]) == (2, "Median over 3650d", 5.5)
    assert "Nothing was deployed." in run("learn", "spent@1", "--dry-run")
    assert "Deployed: manifest 3." in run("learn", "spent@1")
    assert run_json("get", "spent@1:spent_lifetime", "user_id=u8")["features"]["spent_lifetime"]["value"] == 5.5
    with pytest.raises(RequestError, match="declares no statistical default"):
        run("learn", "user_sales@1")
