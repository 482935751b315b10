"""By what a flow judges events has a digest, which a change has iff it could judge one otherwise."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from forebay import Count, EventSource, Int64, String, Timestamp, Variance, WindowedView
from forebay.deploy.outdated import digest, is_outdated
from forebay.deploy.unstreamed import SILENT_AFTER_US
from forebay.language.definitions import Definitions
from forebay.language.entity import Entity
from forebay.language.manifest import from_manifest, to_manifest
from forebay.online.signs import Sign

user = Entity("user", keys={"user": String})
clicks = EventSource(
    "clicks", schema={"id": String, "user": String, "pages": Int64, "ts": Timestamp}, timestamp="ts", event_id="id"
)
COUNT, VARIANCE = Count("n", windows=["1h"], default=0), Variance("v", of="pages", windows=["1h"], default=0.0)


def of(source: EventSource, *features: Count | Variance) -> str:
    view = WindowedView("user_clicks", version=1, entity=user, source=source, features=[*features] or [COUNT])
    return digest(Definitions.of(view), source)


@pytest.mark.parametrize(
    "other",
    [
        replace(clicks, history_start="2021-01-01"),
        replace(clicks, max_skew="2m"),
        replace(clicks, lateness="1h"),
        replace(clicks, dedupe="5m"),
        replace(clicks, schema={**clicks.schema, "user": String(max_bytes=9)}),
        replace(clicks, schema={**clicks.schema, "page_count": Int64}, renamed={"pages": "page_count"}),
    ],
)
def test_what_could_judge_an_event_otherwise_has_another_digest(other: EventSource) -> None:
    assert of(other) != of(clicks)


def test_views_that_square_a_column_bound_it() -> None:
    assert of(clicks, COUNT, VARIANCE) != of(clicks)


def test_what_judges_alike_has_the_same_digest_also_read_back() -> None:
    alike = replace(clicks, owner="a@example.com", description="what was clicked", keep="400d")
    assert of(alike) == of(clicks)
    deployed = from_manifest(
        to_manifest(Definitions.of(WindowedView("v", version=1, entity=user, source=clicks, features=[COUNT])))
    )
    assert digest(deployed, deployed.source("clicks")) == of(clicks)


def test_only_a_flow_that_runs_and_says_by_what_it_judges_is_outdated() -> None:
    definitions = Definitions.of(WindowedView("v", version=1, entity=user, source=clicks, features=[COUNT]))
    mine, now_us = digest(definitions, clicks), 10**15
    runs, ended = Sign(1, 0, now_us, judges_by="another"), Sign(1, 0, now_us, judges_by="another", ended_us=now_us)
    for signs, outdated in [([runs], True), ([ended], False), ([], False)]:
        assert is_outdated(definitions, clicks, signs, now_us) == outdated
    for said in (mine, ""):
        assert not is_outdated(definitions, clicks, [Sign(1, 0, now_us, judges_by=said)], now_us)
    assert not is_outdated(definitions, clicks, [runs], now_us + SILENT_AFTER_US + 1)
