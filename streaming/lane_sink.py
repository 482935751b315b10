"""The writers of the online store, as Bytewax sees them: one part a worker, its keys are the parts' names.

Lives here: Bytewax's side and nothing else. Nothing raises: an error stops the flow through `stop`, and what comes
after it is left for the next flow, which resumes before it.
"""

from __future__ import annotations

from collections.abc import Callable

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from streaming.heartbeat import Heartbeat
from streaming.lane_writer import LaneWriter
from streaming.routing import part_names
from streaming.split import Piece
from streaming.stop import Stop

Item = Piece | Heartbeat


class _LanePart(StatefulSinkPartition[Item, None]):
    def __init__(self, writer: LaneWriter, stop: Stop) -> None:
        self._writer, self._stop = writer, stop

    def write_batch(self, values: list[Item]) -> None:
        with self._stop.failing(BaseException):
            if not self._stop.failed:
                self._writer.write(values)

    def snapshot(self) -> None:
        return None

    def close(self) -> None:
        with self._stop.failing(BaseException):
            if not self._stop.failed:
                self._writer.close()


class LaneSink(FixedPartitionedSink[Item, None]):
    """All writers of a flow, one a worker."""

    def __init__(self, build: Callable[[int], LaneWriter], workers: int, stop: Stop) -> None:
        self._build, self._workers, self._stop = build, workers, stop

    def list_parts(self) -> list[str]:
        """The writers."""
        return part_names(self._workers)

    def part_fn(self, item_key: str) -> int:
        """The writer that a key names."""
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> StatefulSinkPartition[Item, None]:
        """One writer, in its worker's thread."""
        return _LanePart(self._build(int(for_part)), self._stop)
