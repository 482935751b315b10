"""The archive, as Bytewax sees it: decoded chunks go to the background writer of the process.

Lives here: Bytewax's side and nothing else. Handing over never waits and never fails.
"""

from __future__ import annotations

from collections.abc import Callable

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from streaming.decode import Decoded
from streaming.heartbeat import Heartbeat
from streaming.routing import part_names

Item = Decoded | Heartbeat


class _ArchivePart(StatefulSinkPartition[Item, None]):
    def __init__(self, take: Callable[[Item], None]) -> None:
        self._take = take

    def write_batch(self, values: list[Item]) -> None:
        for item in values:
            self._take(item)

    def snapshot(self) -> None:
        return None


class ArchiveSink(FixedPartitionedSink[Item, None]):
    """One part a worker: a reader's chunks stay where they were read."""

    def __init__(self, take: Callable[[Item], None], workers: int) -> None:
        self._take, self._workers = take, workers

    def list_parts(self) -> list[str]:
        """The workers."""
        return part_names(self._workers)

    def part_fn(self, item_key: str) -> int:
        """The worker that a key names."""
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> StatefulSinkPartition[Item, None]:
        """One part, in its worker's thread."""
        return _ArchivePart(self._take)
