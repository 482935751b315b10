"""Bytewax drives the parts of a flow: all of them in this process, or those of one worker in a cluster.

Lives here: calling Bytewax. What the steps are is wired in `flow.py`; a worker is one thread of one process, because
Python's threads wait for each other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from streaming.flow import Steps, build
from streaming.interpreter import COARSE_S, sleep_within
from streaming.parts import Parts

EPOCH = timedelta(hours=1)
"""Bytewax asks its parts for snapshots once an epoch, and ours are empty; but at the end of an epoch the readers of all
workers wait for the slowest writer, and meanwhile they spin (docs/adr/0109).
"""


@dataclass(frozen=True)
class Place:
    """Where a worker stands among the processes of a flow, and where each of them listens while they connect."""

    worker: int
    addresses: list[str]


def drive(parts: Parts, place: Place | None = None) -> None:
    """Run the dataflow until its readers end, then make what it read durable. An error is in the parts' `stop`."""
    os.environ.pop("BYTEWAX_DATAFLOW_API_ENABLED", None)  # its server would listen on every interface
    from bytewax._bytewax import cli_main

    delta, stop = parts.delta, parts.stop
    writer = parts.writer if parts.lanes else None
    steps = Steps(parts.reader, parts.decode, delta.archive, parts.split, writer, stop)
    cluster: dict[str, Any] = {} if place is None else {"process_id": place.worker, "addresses": place.addresses}
    delta.start()
    if place is not None:
        sleep_within(COARSE_S)
    try:
        with stop.failing():
            cli_main(  # type: ignore[no-untyped-call]  # bytewax's stub does not say
                build(steps, parts.task.workers), workers_per_process=1, epoch_interval=EPOCH, **cluster
            )
    finally:
        delta.close()
