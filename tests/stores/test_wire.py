"""What the wire makes of a server's answers."""

from __future__ import annotations

import hiredis
import pytest
import redis

from forebay.errors import StoreError, StoreUnavailableError
from forebay.online.wire import Wire


def test_a_server_that_loads_its_data_is_away_and_not_one_that_refuses(online_url: str) -> None:
    wire = Wire(redis.Redis.from_url(online_url))
    wire.open()
    with pytest.raises(StoreError, match="refused a command: WRONGTYPE") as refused:
        wire.checked([b"fine", hiredis.ReplyError("WRONGTYPE of value")])
    assert not isinstance(refused.value, StoreUnavailableError)
    assert wire.is_open
    with pytest.raises(StoreUnavailableError, match="still loading its data"):
        wire.checked(hiredis.ReplyError("LOADING Valkey is loading the dataset in memory"))
    assert not wire.is_open, "what it watched is unknown: it connects anew"
