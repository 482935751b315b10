"""Where the online store is, and what happens when it isn't: settings, the connection, the embedded server."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from forebay.errors import ConfigError, StoreUnavailableError
from forebay.online import connection
from forebay.online.cluster import Cluster
from forebay.online.connection import address, connect_online, translated
from forebay.online.embedded import TUNABLES, server_environment, start_embedded, stop_embedded
from forebay.online.wire import Wire
from forebay.settings import Settings
from tests.infra.network import Network
from tests.infra.server import free_port
from tests.infra.valkey import Valkey
from tests.infra.valkey_cluster import ValkeyCluster


def settings(**environ: str) -> Settings:
    return Settings.from_env(environ)


def test_an_empty_environment_is_a_deployment_in_the_working_folder() -> None:
    found = settings()
    assert found.home == Path.cwd() / ".forebay"
    assert found.offline_url == str(found.home / "offline")
    assert (found.online_url, found.definitions, found.namespace) == ("embedded", "feature_defs", "forebay")


def test_each_variable_is_taken() -> None:
    found = settings(
        FOREBAY_HOME="/srv/f",
        FOREBAY_ONLINE_URL="rediss://u:p@h:1/2",
        FOREBAY_OFFLINE_URL="s3://bucket/a",
        FOREBAY_DEFINITIONS="my.defs",
        FOREBAY_NAMESPACE="prod-1",
        FOREBAY_PUBLISH_RATE="5000",
        FOREBAY_THREADS="3",
    )
    assert found == Settings(Path("/srv/f"), "rediss://u:p@h:1/2", "s3://bucket/a", "my.defs", "prod-1", 5000, 3)


def test_settings_of_kafka_and_its_registry_pass_through_by_their_own_names_and_are_never_shown() -> None:
    found = settings(
        FOREBAY_KAFKA_BROKERS="kafka:9092",
        FOREBAY_KAFKA_SASL_PASSWORD="secret",
        FOREBAY_KAFKA_SSL_CA_LOCATION="",
        FOREBAY_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO="me:secret",
    )
    assert found.kafka == {"brokers": "kafka:9092", "sasl.password": "secret"}
    assert found.registry == {"basic.auth.user.info": "me:secret"}
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FOREBAY_ONLINE_URL", "http://secret@h", "begins with 'http'; expected 'embedded', redis://"),
        ("FOREBAY_ONLINE_URL", "localhost:6379", "begins with 'localhost:6379'"),
        ("FOREBAY_OFFLINE_URL", "gs://bucket", "begins with 'gs://'; expected a folder such as ./offline or s3://"),
        ("FOREBAY_OFFLINE_URL", "s3://", "expected a folder such as ./offline or s3://bucket/prefix"),
        ("FOREBAY_NAMESPACE", "Prod:1", "FOREBAY_NAMESPACE is 'Prod:1'; expected 1 to 64 of a-z"),
        ("FOREBAY_PUBLISH_RATE", "fast", "'fast'; expected a whole number from 100 on, such as 100000, or 0"),
        ("FOREBAY_PUBLISH_RATE", "99", "'99'; expected a whole number from 100 on"),
        ("FOREBAY_THREADS", "0", "FOREBAY_THREADS is '0'; expected a whole number from 1 to 999, such as 4"),
        ("FOREBAY_THREADS", "all", "FOREBAY_THREADS is 'all'; expected a whole number"),
        ("FOREBAY_DEFINITIONS", "feature-defs", "expected an importable module such as 'feature_defs'"),
    ],
)
def test_a_bad_value_names_its_variable_and_what_is_expected(variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        settings(**{variable: value})
    assert variable in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "rest", ["hunter2@127.0.0.1:port/0", "hunter2/x@127.0.0.1:6379/0", "hunter2@h:1/0?bogus=1", "hunter2@h:1/0?db=x"]
)
def test_a_url_that_cannot_be_one_is_a_config_error_without_the_password(rest: str) -> None:
    wrong = settings(FOREBAY_ONLINE_URL=f"redis://ann:{rest}")
    with pytest.raises(ConfigError, match="FOREBAY_ONLINE_URL cannot be read as a URL; expected redis://") as caught:
        connect_online(wrong)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + repr(wrong)


def test_a_dead_redis_is_one_line_without_the_password() -> None:
    port = free_port()
    dead = settings(FOREBAY_ONLINE_URL=f"redis://ann:hunter2@127.0.0.1:{port}/0")
    with pytest.raises(StoreUnavailableError) as caught:
        connect_online(dead)
    shown = "".join(traceback.format_exception(caught.value))
    assert f"Redis at 127.0.0.1:{port} cannot be reached" in shown
    assert "hunter2" not in shown
    assert "direct cause" not in shown
    assert "During handling" not in shown


def test_a_redis_that_hangs_is_known_by_its_first_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connected to, and then nothing: by the bound of a connection, not by that of a reply."""
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 0.1)
    monkeypatch.setattr(connection, "REPLY_TIMEOUT_S", 3600.0)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        port = hanging.getsockname()[1]
        with pytest.raises(StoreUnavailableError, match=rf"127.0.0.1:{port} cannot be reached \(Timeout"):
            connect_online(settings(FOREBAY_ONLINE_URL=f"redis://127.0.0.1:{port}/0"))


def test_a_first_connection_that_breaks_is_opened_again(valkey: Valkey) -> None:
    port = free_port()
    with Network({port: valkey.port}) as network:
        network.hold(b"PING")
        with connect_online(settings(FOREBAY_ONLINE_URL=f"redis://127.0.0.1:{port}/0")) as client:
            assert client.ping()
        assert network.deliver() == 1


def test_of_several_servers_the_first_that_answers_tells_the_cluster(valkey_cluster: ValkeyCluster) -> None:
    dead, alive = free_port(), [node.port for node in valkey_cluster.primaries]
    several = f"redis://127.0.0.1:{dead},127.0.0.1:{alive[1]},127.0.0.1:{alive[0]}/0"
    with connect_online(settings(FOREBAY_ONLINE_URL=several)) as client:
        assert isinstance(client, Cluster)
        assert address(client) == f"127.0.0.1:{alive[1]}"
        assert len(client.primaries()) == 3


def test_several_servers_that_are_no_cluster_are_refused(valkey: Valkey) -> None:
    port, dead, last = urlsplit(valkey.url).port, free_port(), free_port()
    for order in (f"127.0.0.1:{port},127.0.0.1:{dead}", f"127.0.0.1:{dead},127.0.0.1:{port}"):
        with pytest.raises(ConfigError, match=f"names several servers, and Redis at 127.0.0.1:{port} is no node"):
            connect_online(settings(FOREBAY_ONLINE_URL=f"redis://{order}/0"))
    with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{last} cannot be reached"):
        connect_online(settings(FOREBAY_ONLINE_URL=f"redis://ann:a,b@127.0.0.1:{dead},127.0.0.1:{last}/0"))


def test_a_wrong_password_is_said_to_be_one() -> None:
    with Valkey("--requirepass", "right") as server:
        url = server.url.replace("redis://", "redis://:wrong@")
        with pytest.raises(StoreUnavailableError, match="refused the user and password") as caught:
            connect_online(settings(FOREBAY_ONLINE_URL=url))
        assert "wrong" not in str(caught.value)
        assert connect_online(settings(FOREBAY_ONLINE_URL=url.replace("wrong", "right"))).ping()


def test_a_unix_socket_is_a_place_too(valkey: Valkey) -> None:
    with connect_online(settings(FOREBAY_ONLINE_URL=valkey.unix_url)) as client:
        assert client.ping()


@pytest.fixture
def embedded(home: Path) -> Iterator[Settings]:
    found = settings(FOREBAY_HOME=str(home))
    yield found
    stop_embedded(found)


def pid_of(found: Settings) -> int:
    return int((found.home / "online" / "valkey.pid").read_text())


def test_the_embedded_server_is_started_once_and_shared(embedded: Settings) -> None:
    with connect_online(embedded) as first, connect_online(embedded) as second:
        first.set("k", 1)
        assert second.get("k") == b"1"
        assert int(first.info("server")["process_id"]) == pid_of(embedded)


def test_it_keeps_its_data_when_it_is_stopped(embedded: Settings) -> None:
    with connect_online(embedded) as client:
        client.set("k", 1)
    assert stop_embedded(embedded)
    assert not stop_embedded(embedded)
    with connect_online(embedded) as client:
        assert client.get("k") == b"1"


def test_it_comes_back_after_a_kill_whatever_files_are_left(embedded: Settings) -> None:
    with connect_online(embedded) as client:
        client.set("k", 1)
        client.execute_command("WAITAOF", 1, 0, 5000)
    url = start_embedded(embedded)
    os.kill(pid_of(embedded), signal.SIGKILL)
    assert start_embedded(embedded) == url
    with connect_online(embedded) as client:
        assert client.get("k") == b"1"


def test_its_memory_is_told_to_stay_unless_somebody_said_otherwise() -> None:
    assert server_environment({"A": "1"}) == {"A": "1", "GLIBC_TUNABLES": TUNABLES}
    assert server_environment({"GLIBC_TUNABLES": "mine"}) == {"GLIBC_TUNABLES": "mine"}


def faults(pid: int) -> int:
    """How often a process was given a page of memory that it did not have."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
def test_its_memory_stays_between_transactions(embedded: Settings) -> None:
    """Of a transaction of a publication its append-only file has a buffer of more than 128 KB."""
    with connect_online(embedded) as client:

        def commit() -> None:
            with client.pipeline(transaction=True) as pipe:
                for number in range(256):
                    pipe.set(f"k{number}", b"x" * 1024)
                pipe.execute()

        for _ in range(5):
            commit()
        before = faults(pid_of(embedded))
        for _ in range(20):
            commit()
        assert (faults(pid_of(embedded)) - before) / 20 < 16


def test_an_address_that_somebody_else_has_by_now_is_not_believed(embedded: Settings, valkey: Valkey) -> None:
    start_embedded(embedded)
    stop_embedded(embedded)
    (embedded.home / "online" / "address").write_text(valkey.url)
    with connect_online(embedded) as client:
        assert int(client.info("server")["process_id"]) == pid_of(embedded) != valkey.server.pid


def test_processes_that_start_it_at_once_make_one_server(embedded: Settings) -> None:
    program = (
        "from forebay.settings import Settings; from forebay.online.connection import connect_online; "
        "print(connect_online(Settings.from_env()).info('server')['process_id'])"
    )
    environ = os.environ | {"FOREBAY_HOME": str(embedded.home), "PYTHONPATH": str(Path(__file__).parents[2])}
    started = [
        subprocess.Popen([sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE, text=True) for _ in "123"
    ]
    pids = {int(process.communicate()[0]) for process in started}
    assert pids == {pid_of(embedded)}  # and it has outlived them
    os.kill(pid_of(embedded), 0)


def test_a_home_with_a_long_path_gets_a_port(home: Path) -> None:
    found = settings(FOREBAY_HOME=str(home / ("long" * 30)))
    try:
        assert start_embedded(found).startswith("redis://127.0.0.1:")
    finally:
        assert stop_embedded(found)


def test_a_home_that_cannot_be_written_is_a_config_error(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(ConfigError, match=r"FOREBAY_HOME .* cannot hold the embedded server"):
        connect_online(settings(FOREBAY_HOME=str(home / "file")))


def test_a_node_of_a_cluster_that_was_never_formed_is_said_to_be_one() -> None:
    with Valkey("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as node:
        settings = Settings.from_env({"FOREBAY_ONLINE_URL": node.url.replace("redis://", "redis://:secret@")})
        with pytest.raises(StoreUnavailableError, match="refused the user and password"):
            connect_online(settings)
        with pytest.raises(StoreUnavailableError, match=rf"127.0.0.1:{node.port} does not .*no node of it has hash"):
            connect_online(Settings.from_env({"FOREBAY_ONLINE_URL": node.url}))


def test_who_may_not_ask_a_server_about_itself_is_not_refused(valkey: Valkey) -> None:
    with valkey.connect() as client:
        client.acl_setuser(
            "plain", enabled=True, passwords=["+word"], categories=["+@all"], commands=["-info"], keys=["*"]
        )
        url = valkey.url.replace("redis://", "redis://plain:word@")
        with connect_online(Settings.from_env({"FOREBAY_ONLINE_URL": url})) as asked:
            assert asked.ping()
        client.acl_deluser("plain")


def test_a_server_that_loads_its_data_is_waited_for() -> None:
    with Valkey("--enable-debug-command", "yes", "--key-load-delay", "100", durable=True) as valkey:
        client = valkey.connect()
        with client.pipeline(transaction=False) as pipeline:
            for i in range(8_000):
                pipeline.set(f"k{i}", i)
            pipeline.execute()
        with ThreadPoolExecutor(1) as pool, redis.Redis.from_url(valkey.url, retry=None) as impatient:
            loading = pool.submit(client.execute_command, "DEBUG", "LOADAOF")
            with pytest.raises(redis.BusyLoadingError):
                ping_until(impatient, loading.done)
            connect_online(settings(FOREBAY_ONLINE_URL=valkey.url)).close()
            loading.result()


def test_a_server_that_cannot_write_still_answers_reads() -> None:
    with Valkey("--enable-protected-configs", "yes") as valkey:
        client = valkey.connect()
        client.set("k", "v")
        client.config_set("save", "1 1")
        client.config_set("dir", "/proc/self")  # where no snapshot can be written: then the server takes no writes
        client.bgsave()
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            ping_until(client, lambda: False)
        asked = connect_online(settings(FOREBAY_ONLINE_URL=valkey.url))
        assert asked.get("k") == b"v"
        told = r"takes no writes at the moment \(.*MISCONF .*INFO persistence"
        with pytest.raises(StoreUnavailableError, match=told), translated(asked):
            asked.set("k", "w")
        with pytest.raises(StoreUnavailableError, match=told), translated(asked), asked.pipeline() as pipe:
            pipe.set("k", "w").execute()
        wire = Wire(asked)
        wire.open()
        with pytest.raises(StoreUnavailableError, match=r"takes no writes at the moment \(MISCONF"):
            wire.call("SET", "k", "w")
        assert not wire.is_open, "whoever tries again looks anew at what is there"


@pytest.mark.parametrize(
    "error",
    [
        redis.OutOfMemoryError("command not allowed"),
        redis.ReadOnlyError("You can't write"),
        "NOREPLICAS Not enough good replicas to write.",
        "Command # 1 (SET a b) of pipeline caused error: MISCONF Errors writing to the AOF file",
        "EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.",
    ],
)
def test_a_server_that_takes_no_writes_is_away(error: redis.RedisError | str) -> None:
    away = pytest.raises(StoreUnavailableError, match="cache:6380 takes no writes")
    with redis.Redis(host="cache", port=6380) as client, away, translated(client):
        raise redis.ResponseError(error) if isinstance(error, str) else error


def ping_until(client: redis.Redis, is_done: Callable[[], bool]) -> None:
    while not is_done():
        client.ping()
