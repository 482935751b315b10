"""Refused offsets: found by whoever reads the log again, and gone once the archive is past them."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from forebay.ingest.batch import DEFINED, FUTURE
from forebay.online import refusals
from forebay.online.keys import Keys
from forebay.online.refusals import Refusals, refuse_command


def refuse(client: redis.Redis, namespace: str, slot: int, partition: str, *offsets: int) -> None:
    connection = client.connection_pool.get_connection()
    refused = dict.fromkeys(offsets, FUTURE)
    connection.send_packed_command([refuse_command(Keys(namespace), slot, "clicks", partition, refused)])
    assert connection.read_response() == len(offsets)
    client.connection_pool.release(connection)


def test_what_the_archive_is_past_goes_from_the_sets_that_hold_it(
    client: redis.Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several lanes may refuse an offset; a commit of the archive may be past very many of them."""
    refuse(client, namespace, 0, "a:0", *range(25))
    refuse(client, namespace, 8, "a:0", 5, 24, 30)
    refuse(client, namespace, 56, "b/0", 7)
    known = Refusals(client, namespace)
    assert known.read("clicks") == {"a:0": dict.fromkeys([*range(25), 30], FUTURE), "b/0": {7: FUTURE}}
    removed: list[tuple[str, int]] = []
    srem = redis.client.Pipeline.srem

    def counted(pipe: Any, key: str, *names: Any) -> Any:
        removed.append((key, len(names)))
        return srem(pipe, key, *names)

    monkeypatch.setattr(redis.client.Pipeline, "srem", counted)
    monkeypatch.setattr(refusals, "FORGOTTEN_AT_ONCE", 10)
    known.forget("clicks", lambda partition, offset: partition == "a:0" and offset < 25)
    first, second = (Keys(namespace).refused(slot, "clicks") for slot in (0, 8))
    assert removed == [(first, 10), (first, 10), (first, 5), (second, 2)]
    assert known.read("clicks") == {"a:0": {30: FUTURE}, "b/0": {7: FUTURE}}
    known.forget("clicks", lambda partition, offset: False)
    assert len(removed) == 4


def test_each_is_kept_with_its_reason_and_one_of_before_was_dated_too_far_ahead(
    client: redis.Redis, namespace: str
) -> None:
    told = dict(enumerate(sorted(DEFINED)))
    connection = client.connection_pool.get_connection()
    connection.send_packed_command([refuse_command(Keys(namespace), 3, "clicks", "a/1:x", told)])
    connection.read_response()
    client.connection_pool.release(connection)
    client.sadd(Keys(namespace).refused(4, "clicks"), "a/1:x/99")
    assert Refusals(client, namespace).read("clicks") == {"a/1:x": {**told, 99: FUTURE}}
