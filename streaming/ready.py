"""What a flow needs, looked at before it takes over: one that could not run would end the one that does.

    look at ports, logs, registries ──▶ take over: who streamed before is fenced ──▶ open them, where the stores are

Lives here: trying what is opened later, with the same words where it fails. Invariant: nothing is held, and nothing of
a flow that runs is touched. What depends on positions (a log that was cut off or made anew) is seen only when it is
opened, because no position is read before all is taken over.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial

from forebay.language.source import EventSource, FileStream, KafkaTopic, RedisStream
from forebay.offline.table_source import expand_path
from forebay.online.connection import connect_online
from forebay.settings import Settings
from streaming.file_log import files_of
from streaming.kafka_client import Cluster
from streaming.metrics import check_port, port_of_worker
from streaming.parts import Task, codecs_of_task
from streaming.redis_log import connect


def check_ready(task: Task, metrics_port: int = 0) -> None:
    """Raises `ConfigError` for what a task cannot run with; a log that is away is waited for, as the flow would."""
    for port in _ports(metrics_port, task.workers):
        check_port(port)
    codecs_of_task(task)
    for source in task.sources:
        task.patience(partial(_look, source, task.settings, task.patience.give_up_after_s))


def _ports(metrics_port: int, workers: int) -> list[int]:
    """Those that the flow will listen on."""
    if not metrics_port:
        return []
    return [metrics_port, *(port_of_worker(metrics_port, n) for n in range(workers if workers > 1 else 0))]


def _look(source: EventSource, settings: Settings, answer_s: float) -> None:
    """Reach the log of a source."""
    stream = source.stream
    if isinstance(stream, FileStream):
        files_of(source, expand_path(stream.path, settings.home, os.environ, f"Stream of {source.name!r}"))
    elif isinstance(stream, RedisStream):
        with contextlib.closing(connect(stream, lambda: connect_online(settings))):
            pass
    elif isinstance(stream, KafkaTopic):
        cluster = Cluster(source, settings.kafka, answer_s)
        cluster.consumer().close()
        cluster.partitions()
