"""A stream that is declared at another place is read on where it was: the plan says what that asks for."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from forebay import EventSource, FileStream, KafkaTopic, RedisStream, String, Timestamp
from forebay.deploy.plan import MOVED, make_plan
from forebay.language.definitions import Definitions
from forebay.language.source import AnyStream

clicks = EventSource("clicks", schema={"id": String, "ts": Timestamp}, timestamp="ts", event_id="id")


@pytest.mark.parametrize(
    ("was", "now", "advice"),
    [
        (FileStream("a"), FileStream("b"), MOVED),
        (RedisStream("k"), RedisStream("k", url="redis://127.0.0.1:6380"), MOVED),
        (KafkaTopic("t", brokers="a:1"), KafkaTopic("t", brokers="b:1"), MOVED),
        (RedisStream("k"), RedisStream("other"), ""),
        (KafkaTopic("t"), KafkaTopic("t", epoch=1), ""),
    ],
)
def test_a_stream_that_moves_is_said_to_be_read_on(was: AnyStream, now: AnyStream, advice: str) -> None:
    before, after = (Definitions.of(replace(clicks, stream=stream)) for stream in (was, now))
    (change,) = make_plan(after, before).changed
    assert (change.key, change.advice) == ("clicks", advice)
