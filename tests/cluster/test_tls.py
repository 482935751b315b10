"""`rediss://` to a cluster: every node speaks TLS, and every path goes there, with user and password of the URL."""

from __future__ import annotations

import pytest

from forebay.instants import HOUR_US
from forebay.online import pending as pending_module
from forebay.online.cluster import Cluster
from forebay.online.connection import connect_online
from forebay.settings import Settings
from tests.infra.server import free_port
from tests.infra.tls import TlsProxy
from tests.infra.valkey_cluster import NODES, ValkeyCluster
from tests.stores.online_world import MIDNIGHT_US, VIEWS, Order, assert_law, lane_of, publish, stretch

ORDERS = [Order(f"u{i % 20}", MIDNIGHT_US + (i - 20) * HOUR_US, i) for i in range(60)]


def test_stream_publication_and_reads_go_over_tls_to_each_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_module, "ROLL_BYTES", 1)
    monkeypatch.setattr(pending_module, "ROLL_RECORDS", 3)
    ports = [free_port() for _ in range(NODES)]
    with ValkeyCluster(announced=ports) as cluster:
        first, *others = zip(ports, (node.port for node in cluster.nodes), strict=True)
        with TlsProxy(*first, dict(others)) as proxy:
            url = f"rediss://default:any@127.0.0.1:{ports[0]}/0?ssl_ca_certs={proxy.authority}"
            client = connect_online(Settings.from_env({"FOREBAY_ONLINE_URL": url}))
            assert isinstance(client, Cluster)
            lane = lane_of(client, "tls")
            for first_order in range(0, len(ORDERS), 20):
                lane.commit([stretch(ORDERS[first_order : first_order + 20])])
            for view in VIEWS.values():
                publish(client, "tls", ORDERS, MIDNIGHT_US, view)
            assert_law(client, "tls", ORDERS)
            lane.close()
            client.close()
