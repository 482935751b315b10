"""`rediss://` with a user and a password: every path that speaks to the online store, over TLS.

Valkey speaks plainly here; a proxy of the tests' own decrypts in front of it.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from forebay.errors import StoreUnavailableError
from forebay.instants import HOUR_US
from forebay.online import pending as pending_module
from forebay.online.connection import connect_online
from forebay.online.wire import LONG_BYTES
from forebay.settings import Settings
from tests.infra.server import free_port
from tests.infra.tls import TlsProxy
from tests.infra.valkey import Valkey
from tests.stores.online_world import MIDNIGHT_US, VIEWS, Order, assert_law, lane_of, publish, recent, stretch

PASSWORD = "p@ss:w/rd"
ORDERS = [Order("ann" if i % 3 else "bob", MIDNIGHT_US + (i - 20) * HOUR_US, i) for i in range(30)]


def settings(port: int, authority: Path, password: str = PASSWORD) -> Settings:
    url = f"rediss://default:{quote(password, safe='')}@127.0.0.1:{port}/0?ssl_ca_certs={authority}"
    return Settings.from_env({"FOREBAY_ONLINE_URL": url})


def test_stream_publication_and_reads_go_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_module, "ROLL_BYTES", 1)
    monkeypatch.setattr(pending_module, "ROLL_RECORDS", 3)
    port = free_port()
    with Valkey("--requirepass", PASSWORD) as valkey, TlsProxy(port, valkey.port) as proxy:
        client = connect_online(settings(port, proxy.authority))
        lane = lane_of(client, "tls")
        for first in range(0, len(ORDERS), 7):
            lane.commit([stretch(ORDERS[first : first + 7])])
        for view in VIEWS.values():
            publish(client, "tls", ORDERS, MIDNIGHT_US, view)
        assert_law(client, "tls", ORDERS)
        lane.close()
        client.close()


def test_long_parts_of_a_transaction_go_over_tls_as_they_are(client: redis.Redis, namespace: str) -> None:
    orders = [Order(f"user{n}", MIDNIGHT_US - HOUR_US, n) for n in range(3_000)]
    port = free_port()
    with Valkey("--requirepass", PASSWORD) as valkey, TlsProxy(port, valkey.port) as proxy:
        secured = connect_online(settings(port, proxy.authority))
        for one in (client, secured):
            assert publish(one, namespace, orders, MIDNIGHT_US, recent).rows == len(orders)
        names = sorted(client.scan_iter(f"{namespace}:*:b", 5_000))
        assert len(b"".join(values := client.mget(names))) > 4 * LONG_BYTES
        assert secured.mget(names) == values
        secured.close()


def test_a_certificate_that_is_not_trusted_and_a_wrong_password_are_one_line_without_it() -> None:
    port = free_port()
    with Valkey("--requirepass", PASSWORD) as valkey, TlsProxy(port, valkey.port) as proxy:
        with pytest.raises(StoreUnavailableError, match=r"refused the user and password") as refused:
            connect_online(settings(port, proxy.authority, "wr0ng"))
        with (
            TlsProxy(other := free_port(), valkey.port),
            pytest.raises(StoreUnavailableError, match=r"cannot be reached .*certificate") as untrusted,
        ):
            connect_online(settings(other, proxy.authority))
        for error in (refused, untrusted):
            assert "wr0ng" not in str(error.value)
            assert PASSWORD not in str(error.value)
            assert "\n" not in str(error.value)
