"""The servers of the tests do what the other tests trust them to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pytest
import redis
from deltalake import DeltaTable, write_deltalake

from tests.infra.server import Server, listens
from tests.infra.valkey import Valkey


def test_a_killed_valkey_comes_back_with_what_it_acknowledged(own_valkey: Valkey) -> None:
    port = own_valkey.port
    own_valkey.connect().set("river", "high")

    own_valkey.kill()
    with pytest.raises(redis.ConnectionError):
        own_valkey.connect().ping()
    own_valkey.restart()

    assert own_valkey.port == port
    assert own_valkey.connect().get("river") == b"high"


def test_valkey_answers_on_its_unix_socket(valkey: Valkey) -> None:
    assert redis.Redis.from_url(valkey.unix_url).ping()


def test_s3_takes_two_writers_of_one_table_and_loses_no_row(s3_url: str) -> None:
    options = {"allow_http": "true"}
    table = pa.table({"n": [1]})
    write_deltalake(s3_url, table, storage_options=options)
    behind = DeltaTable(s3_url, storage_options=options)
    write_deltalake(s3_url, table, mode="append", storage_options=options)
    write_deltalake(behind, table, mode="append", storage_options=options)

    assert DeltaTable(s3_url, storage_options=options).to_pyarrow_table()["n"].to_pylist() == [1, 1, 1]


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = Server([sys.executable, "-c", "raise SystemExit('the dam broke')"], folder=tmp_path)
    with pytest.raises(RuntimeError, match="the dam broke"):
        server.await_ready(lambda: False, timeout_s=30)


def test_a_server_dies_with_the_tests_that_started_it() -> None:
    program = """
        import sys
        from tests.infra.valkey import Valkey
        print(Valkey().port, flush=True)
        sys.stdin.read()
    """
    tests = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tests.stdout is not None
    port = int(tests.stdout.readline())
    connection = redis.Redis(port=port)
    assert connection.ping()

    os.kill(tests.pid, signal.SIGKILL)
    tests.communicate()

    with pytest.raises(redis.ConnectionError):  # blocks until the server is gone, for no answer comes
        connection.blpop(["never"], timeout=30)
    connection.close()
    assert not listens(port)
