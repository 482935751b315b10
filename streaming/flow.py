"""The flow at a glance:

    read ──▶ decode ──┬──▶ archive            raw events, dead letters, repair marks ──▶ Delta, in the background
                      └──▶ split ──▶ online   partials and progress, together        ──▶ Redis
                                                                                     ──▶ streamed/, in the background

Lives here: the wiring for Bytewax. No step keeps state for Bytewax and no recovery store is used: where to resume is
read from the stores (docs/adr/0020). What travels is columns of thousands of events, and behind them the heartbeats of
their reader. Sinks are FixedPartitionedSinks, never DynamicSinks, which can lose what they were given when a flow
fails.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from streaming.archive_sink import ArchiveSink
from streaming.chunk import Chunk
from streaming.decode import Decoded
from streaming.heartbeat import Heartbeat
from streaming.lane_sink import LaneSink
from streaming.lane_writer import LaneWriter
from streaming.routing import part_names, reader_of
from streaming.sources import Reader, Readers
from streaming.split import Piece
from streaming.stop import Stop

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Steps:
    """What the flow is made of; each is a plain function or object that a test can call."""

    reader: Callable[[int], Reader]
    decode: Callable[[Sequence[Chunk]], list[Decoded]]
    archive: Callable[[Decoded | Heartbeat], None]
    split: Callable[[Sequence[Decoded | Heartbeat]], list[Piece | Heartbeat]]
    writer: Callable[[int], LaneWriter] | None
    """The writers of the online store; none where no source has a windowed view."""
    stop: Stop


def build(steps: Steps, workers: int) -> Dataflow:
    """The dataflow for a number of workers."""
    flow = Dataflow("forebay")
    chunks = op.input("read", flow, Readers(steps.reader, workers))
    found = op.flat_map_batch("decode", chunks, _guarded(steps.stop, partial(decoded, steps.decode)))
    by_reader = op.map("by_reader", found, lambda one: (_reader_key(one, workers), one))
    op.output("archive", by_reader, ArchiveSink(steps.archive, workers))
    if steps.writer is None:
        return flow
    pieces = op.flat_map_batch("split", found, _guarded(steps.stop, steps.split))
    by_writer = op.map("by_writer", pieces, lambda piece: (part_names(workers)[piece.writer], piece))
    op.output("online", by_writer, LaneSink(steps.writer, workers, steps.stop))
    return flow


def decoded(
    decode: Callable[[Sequence[Chunk]], list[Decoded]], items: Sequence[Chunk | Heartbeat]
) -> list[Decoded | Heartbeat]:
    """What a reader found at once, decoded, and its heartbeats where they came."""
    out: list[Decoded | Heartbeat] = []
    for is_beat, some in itertools.groupby(items, lambda item: isinstance(item, Heartbeat)):
        alike = [*some]
        out += alike if is_beat else decode(alike)
    return out


def _reader_key(item: Decoded | Heartbeat, workers: int) -> str:
    """The part of the reader that it comes from."""
    if isinstance(item, Heartbeat):
        return part_names(workers)[item.reader]
    return part_names(workers)[reader_of(item.batch.source.name, item.batch.partition, workers)]


def _guarded(stop: Stop, step: Callable[[In], list[Out]]) -> Callable[[In], Iterator[Out]]:
    """A step whose error stops the flow; after it nothing passes, so that no writer sees a gap."""

    def run(item: In) -> Iterator[Out]:
        out: list[Out] = []
        with stop.failing(BaseException):
            if not stop.failed:
                out = step(item)
        return iter(out)

    return run
