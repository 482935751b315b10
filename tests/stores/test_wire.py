"""What the wire makes of a server's answers."""

from __future__ import annotations

import hiredis
import pytest
import redis

from forebay.errors import StoreError, StoreUnavailableError
from forebay.online.wire import LONG_BYTES, Wire, _sends, pack


def test_a_server_that_loads_its_data_is_away_and_not_one_that_refuses(online_url: str) -> None:
    wire = Wire(redis.Redis.from_url(online_url))
    wire.open()
    with pytest.raises(
        StoreError, match=r"refused a command: WRONGTYPE.*`TYPE` finds it among those of the namespace"
    ) as refused:
        wire.checked([b"fine", hiredis.ReplyError("WRONGTYPE of value")])
    assert not isinstance(refused.value, StoreUnavailableError)
    assert wire.is_open
    with pytest.raises(StoreUnavailableError, match="still loading its data"):
        wire.checked(hiredis.ReplyError("LOADING Valkey is loading the dataset in memory"))
    assert not wire.is_open, "what it watched is unknown: it connects anew"


def test_short_parts_are_joined_and_long_ones_sent_where_they_are(online_url: str) -> None:
    values = [b"a", b"b" * LONG_BYTES, b"c", b"d" * 3, b"e" * (2 * LONG_BYTES)]
    commands = [pack(("ECHO", value)) for value in values]
    sent = list(_sends(commands))
    assert b"".join(sent) == b"".join(commands)
    assert [len(one) >= LONG_BYTES for one in sent] == [False, True, False, True]
    assert sent[1] is commands[1]
    assert list(_sends([])) == []
    wire = Wire(redis.Redis.from_url(online_url))
    wire.open()
    assert wire.ask(commands, len(values)) == values
    wire.close()
