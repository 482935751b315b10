"""What a flow needs, looked at before it takes over: one that could not run would end the one that does.

    look at ports, logs, registries ──▶ take over: who streamed before is fenced ──▶ open them, where the stores are

Lives here: trying what is opened later, with the same words where it fails. Invariant: nothing is held, and nothing of
a flow that runs is touched. What depends on positions (a log that was cut off or made anew) is seen only when it is
opened, because no position is read before all is taken over.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from functools import partial
from pathlib import Path

import redis

from forebay.language.source import EventSource, FileStream, KafkaTopic, RedisStream
from forebay.offline.table_source import expand_path
from forebay.online.connection import connect_online, translated
from forebay.settings import Settings
from streaming.file_log import LINES, PARQUET, files_of
from streaming.kafka_client import KafkaCluster
from streaming.logs import LOG
from streaming.metrics import check_port, port_of_worker
from streaming.parts import Task, codecs_of_task
from streaming.redis_log import connect, partition_name, stream_name, url_of

COMPRESSED = tuple(f"{kind}{way}" for kind in LINES for way in (".gz", ".zst", ".bz2", ".xz", ".lz4", ".snappy"))
"""Lines that somebody meant to be read: other files may well lie beside a stream."""
EXISTS_MAX = 1_000
"""Partitions that are asked for at once: a declaration may have more."""


def check_ready(task: Task, metrics_port: int = 0) -> None:
    """Raises `ConfigError` for what a task cannot run with; a log that is away is waited for, as the flow would."""
    for port in _ports(metrics_port, task.workers):
        check_port(port)
    codecs_of_task(task)
    for source in task.sources:
        task.patience(partial(_look, source, task.settings, task.patience.give_up_after_s))


def _say_unread(source: EventSource, folder: Path, read: Collection[Path]) -> None:
    """Say that a folder has files, and none of a kind that is read, or compressed ones beside those that are."""
    if not folder.is_dir():
        return
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    known = {file.name for file in read}
    unread = [name for name in names if name not in known and (not known or name.endswith(COMPRESSED))]
    if unread:
        LOG.warning(
            "files_unread",
            warning=f"of the {len(names)} files in {folder}, {len(unread)} cannot be read for {source.name!r}, such as "
            f"{unread[0]}: "
            f"expected names that end in {', '.join((*LINES, *PARQUET))}",
            source=source.name,
            files=len(unread),
        )


def _say_elsewhere(source: EventSource, stream: RedisStream, client: redis.Redis) -> None:
    """Say that there is a stream of the key itself, and none of its partitions."""
    names = [stream_name(stream, partition_name(stream, number)) for number in range(stream.partitions)]
    elsewhere = False
    with translated(client, url_of(stream)), contextlib.suppress(redis.exceptions.NoPermissionError):
        # who may only read the partitions can run a flow: it is not refused for a look that is for a warning
        elsewhere = client.type(stream.key) == b"stream" and not client.exists(*names[:EXISTS_MAX])
    if elsewhere:
        LOG.warning(
            "stream_elsewhere",
            warning=f"the stream {stream.key!r} is not read for {source.name!r}, and {names[0]!r} is not there: "
            f"partition i of RedisStream({stream.key!r}) is the stream {stream.key}:i, so add events there",
            source=source.name,
            stream=stream.key,
        )


def _ports(metrics_port: int, workers: int) -> list[int]:
    """Those that the flow will listen on."""
    if not metrics_port:
        return []
    return [metrics_port, *(port_of_worker(metrics_port, n) for n in range(workers if workers > 1 else 0))]


def _look(source: EventSource, settings: Settings, answer_s: float) -> None:
    """Reach the log of a source."""
    stream = source.stream
    if isinstance(stream, FileStream):
        path = expand_path(stream.path, settings.home, os.environ, f"Stream of {source.name!r}")
        _say_unread(source, Path(path), files_of(source, path))
    elif isinstance(stream, RedisStream):
        with contextlib.closing(connect(stream, lambda: connect_online(settings))) as client:
            _say_elsewhere(source, stream, client)
    elif isinstance(stream, KafkaTopic):
        cluster = KafkaCluster(source, settings.kafka, answer_s)
        cluster.consumer().close()
        cluster.partitions()
        cluster.refuse_compacted()
