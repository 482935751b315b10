"""Redis Streams on a cluster: with a URL of their own they are of one server."""

from __future__ import annotations

import pytest

from forebay import RedisStream
from forebay.errors import ConfigError
from forebay.online.cluster import Cluster
from streaming.redis_log import connect
from tests.infra.valkey_cluster import ValkeyCluster


def test_a_stream_with_a_url_refuses_a_cluster_in_one_line(valkey_cluster: ValkeyCluster, client: Cluster) -> None:
    url = valkey_cluster.url.replace("redis://", "redis://default:hunter2@")
    with pytest.raises(ConfigError, match="names a node of a Redis Cluster; expected one server") as refused:
        connect(RedisStream("tills", partitions=2, url=url), lambda: client)
    assert valkey_cluster.url.removeprefix("redis://") in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert "Leave out url=" in str(refused.value)
    assert connect(RedisStream("tills", partitions=2), lambda: client) is client
