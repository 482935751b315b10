"""The feature server over a real Valkey: answers, defaults, and errors that say what to do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest

from forebay import Timestamp
from forebay.core.events import Column, Events
from forebay.core.layout import Layout
from forebay.core.tiles import fold, roll_up
from forebay.errors import RequestError
from forebay.instants import HOUR_US, day_us
from forebay.language.definitions import Definitions
from forebay.language.manifest import to_manifest
from forebay.online.connection import connect_online
from forebay.online.keys import Keys
from forebay.online.publish import publish_rows, publish_tiles
from forebay.settings import Settings
from serving.asking import request_values
from tests.backfill import shop
from tests.infra.valkey import Valkey

CHECKOUT = Path(__file__).parents[2]
DAY = day_us("2024-01-02")
AT = "2024-01-02T00:00:00Z"


@contextmanager
def serving(**environment: str) -> Iterator[httpx.Client]:
    """The server as a user starts it, ready to be asked."""
    process = subprocess.Popen(
        [sys.executable, "-m", "serving"],
        cwd=CHECKOUT,
        env={**_environ(), "FOREBAY_HTTP_PORT": "0", **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        with httpx.Client(base_url=line.split()[3], timeout=20.0) as client:
            yield client
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.stdout.close()


def _environ() -> dict[str, str]:
    import os

    return {**os.environ, "FOREBAY_DEFINITIONS": "tests.backfill.shop"}


@pytest.fixture(scope="module")
def namespace() -> str:
    """One namespace for the module: its tests only read."""
    return "serving-tests"


@pytest.fixture(scope="module")
def server(valkey: Valkey, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server over a store in which user u1 and counter NL|7 have something."""
    home = tmp_path_factory.mktemp("home")
    redis = connect_online(Settings(home, valkey.url, str(home), "tests.backfill.shop", namespace))
    layout = Layout.of(shop.counter_sales)
    amount = Column(np.array([1250, 50]), np.array([True, True]))
    events = Events(
        pa.array(["NL|7"]),
        np.zeros(2, np.int64),
        np.array([DAY - 5 * HOUR_US, DAY - HOUR_US]),
        np.array([b"a", b"b"], "S16"),
        np.arange(2),
        {"amount": amount},
    )
    publish_tiles(
        redis, namespace, shop.counter_sales, events.keys.to_pylist(), roll_up(layout, fold(layout, events)), DAY
    )
    moment = pa.array([DAY - HOUR_US], pa.timestamp("us", "UTC"))
    row = {"user_id": ["u1"], "tier": [3], "event_timestamp": moment, "created_timestamp": moment}
    publish_rows(redis, namespace, shop.user_tier, pa.table(row), now_us=DAY)
    redis.set(Keys(namespace).manifest(), to_manifest(Definitions.load("tests.backfill.shop")))
    with serving(FOREBAY_HOME=str(home), FOREBAY_ONLINE_URL=valkey.url, FOREBAY_NAMESPACE=namespace) as client:
        yield client


def test_a_named_feature_is_answered_with_status_and_event_timestamp(server: httpx.Client) -> None:
    answer = server.get("/features/user/u1", params={"names": "tier", "at": AT})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "entity": {"user_id": "u1"},
        "features": {"tier": {"value": 3, "status": "PRESENT", "event_timestamp": "2024-01-01T23:00:00Z"}},
        "instant": AT,
    }


def test_the_keys_of_an_entity_are_joined_by_a_bar(server: httpx.Client) -> None:
    answer = server.get("/features/counter/NL|7", params={"names": "sold_24h,counter_sales@1:turnover_24h", "at": AT})
    assert answer.json()["entity"] == {"country": "NL", "shop": 7}
    assert answer.json()["features"]["sold_24h"]["value"] == 2
    assert '"counter_sales@1:turnover_24h":{"value":13.00' in answer.text  # a Decimal keeps its digits


def test_an_on_demand_feature_takes_its_request_from_the_query(server: httpx.Client) -> None:
    query = {"names": "tiered_amount,tiered@1:tiered_amount,tier", "amount": "12.50", "is_gift": "false", "at": AT}
    features = server.get("/features/user/u1", params=query).json()["features"]
    computed = {"value": 37.5, "status": "PRESENT", "event_timestamp": "2024-01-01T23:00:00Z"}
    assert features["tiered_amount"] == features["tiered@1:tiered_amount"] == computed
    gift = server.get("/features/user/u1", params={**query, "is_gift": "true"}).json()["features"]
    assert gift["tiered_amount"]["value"] == 0
    null = server.get("/features/user/u1", params={**query, "amount": ""}).json()["features"]
    assert null["tiered_amount"] == {"value": 0, "status": "DEFAULT_MISSING", "event_timestamp": None}


@pytest.mark.parametrize("name", ["at", "names"])
def test_a_request_column_that_is_a_parameter_of_the_address_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=f"Request column '{name}' is a parameter of this address"):
        request_values({name: "2024-01-01T00:00:00Z"}, {name: Timestamp})


def test_without_names_all_features_of_the_entity_are_answered(server: httpx.Client) -> None:
    features = server.get("/features/user/nobody").json()["features"]
    assert set(features) == {*shop.user_sales.outputs(), *shop.user_tier.outputs(), *shop.user_spending.outputs()}
    assert {feature["status"] for feature in features.values()} == {"DEFAULT_MISSING"}
    assert features["last_amount_lifetime"]["value"] is None


def test_a_live_read_is_of_now(server: httpx.Client) -> None:
    answer = server.get("/features/user/u1?names=tier").json()
    assert datetime.fromisoformat(answer["instant"]).year > 2024
    forgotten = {"value": 0, "status": "DEFAULT_MISSING", "event_timestamp": None}  # it expired more than a year ago
    assert answer["features"]["tier"] == forgotten


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/features/usr/u1", 404, "user"),
        ("/features/user/u1?names=teir", 404, "tier"),
        ("/features/user/u1?names=counter_sales@1:sold_24h", 400, "/features/counter/"),
        ("/features/user/u1?names=user_tier@9:tier", 404, "user_tier@1"),
        ("/features/user/u1?names=,", 400, "names=a,b"),
        ("/features/user/u1?names=tiered_amount&is_gift=true", 400, "Add &amount=…"),
        ("/features/user/u1?names=tiered_amount&amount=1&is_gift=no", 400, "true or false"),
        ("/features/user/u1?names=tiered_amount&amount=one&is_gift=true", 400, "a number"),
        ("/features/counter/NL|7?names=tiered_amount&amount=1&is_gift=true", 404, "tiered_amount"),
        ("/features/user/u1?names=at_counter@1:tier_per_sale", 400, "Python client"),
        ("/features/user/u1?names=tier&at=2024-01-02", 400, "time zone"),
        ("/features/user/u1?names=tier&at=2024-01-01T00:00:00Z", 400, "history"),
        ("/features/counter/NL", 400, "country | shop"),
        ("/features/counter/NL|seven", 400, "whole number"),
        (f"/features/user/{'u' * 2000}", 400, "1024"),
        ("/features/user/u1?names=" + "a" * 40_000, 400, "32768"),
        ("/nothing", 404, "/features/"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_hint(
    server: httpx.Client, path: str, status: int, words: str
) -> None:
    answer = server.get(path)
    body = answer.json()
    assert (answer.status_code, set(body)) == (status, {"error", "hint"}), answer.text
    assert words in body["error"] + body["hint"]


def test_other_methods_are_refused(server: httpx.Client) -> None:
    assert server.post("/features/user/u1").status_code == 405


def test_health_says_that_a_manifest_is_deployed(server: httpx.Client) -> None:
    assert (server.get("/health").status_code, server.get("/health").json()) == (200, {"status": "ok"})


def test_a_dead_store_is_unavailable_and_comes_back(own_valkey: Valkey) -> None:
    with serving(FOREBAY_ONLINE_URL=own_valkey.url) as client:
        for path in ("/features/user/u1", "/health"):  # nothing is deployed
            answer = client.get(path)
            assert (answer.status_code, "forebay apply" in answer.json()["hint"]) == (503, True)
        with own_valkey.connect() as redis:
            redis.set(Keys("forebay").manifest(), to_manifest(Definitions.load("tests.backfill.shop")))
        assert client.get("/features/user/u1").status_code == 200
        own_valkey.kill()
        for path in ("/features/user/u1", "/health"):
            answer = client.get(path)
            assert (answer.status_code, "cannot be reached" in answer.json()["error"]) == (503, True)
            assert answer.json()["hint"].startswith("Check that it runs")
        own_valkey.restart()
        assert client.get("/features/user/u1").status_code == 200


def test_what_is_deployed_while_it_runs_is_served(valkey: Valkey, tmp_path: Path) -> None:
    environment = {"FOREBAY_HOME": str(tmp_path), "FOREBAY_ONLINE_URL": valkey.url, "FOREBAY_NAMESPACE": "later"}
    with serving(**environment | {"FOREBAY_DEFINITIONS": "feature_defs"}) as client, valkey.connect() as redis:
        assert client.get("/features/user/u1").status_code == 503
        redis.set(Keys("later").manifest(), to_manifest(Definitions.load("tests.backfill.shop")))
        deadline = time.monotonic() + 20.0  # it looks again at most once a second
        while (answer := client.get("/features/user/u1", params={"names": "tier"})).status_code == 503:
            assert time.monotonic() < deadline, answer.text
        assert answer.json()["features"]["tier"]["status"] == "DEFAULT_MISSING"


def test_a_port_that_cannot_be_used_is_one_clear_line() -> None:
    for port, words in (("70000", "65535"), ("x", "65535")):
        run = ended(FOREBAY_HTTP_PORT=port)
        assert (run.returncode, run.stderr.count("\n"), words in run.stderr) == (2, 1, True)


def test_an_argument_is_not_ignored() -> None:
    run = ended("--port", "80")
    assert (run.returncode, run.stderr.count("\n"), "the port is FOREBAY_HTTP_PORT" in run.stderr) == (2, 1, True)


def ended(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A server that cannot begin."""
    return subprocess.run(
        [sys.executable, "-m", "serving", *arguments],
        cwd=CHECKOUT,
        env={**_environ(), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
