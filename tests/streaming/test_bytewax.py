"""What the flow relies on in Bytewax: one part of a source and of a sink for each process, and items in their order."""

from __future__ import annotations

import multiprocessing
import socket
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import bytewax.operators as op
import pytest
from bytewax._bytewax import cli_main
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from streaming.archive_sink import ArchiveSink
from streaming.engine import EPOCH
from streaming.lane_sink import LaneSink
from streaming.routing import part_names
from streaming.sources import Reader
from streaming.stop import Stop

Item = tuple[str, int]


class Numbers(FixedPartitionedSource[Item, None]):
    """Each part yields its name with 0, 1, … 99."""

    def __init__(self, workers: int) -> None:
        self.workers, self.parts, self.snapshots = workers, list[str](), 0

    def list_parts(self) -> list[str]:
        return part_names(self.workers)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> StatefulSourcePartition[Item, None]:
        self.parts.append(for_part)
        source = self

        class Part(StatefulSourcePartition[Item, None]):
            at = 0

            def next_batch(self) -> Sequence[Item]:
                if self.at == 100:
                    raise StopIteration
                self.at += 1
                return [(for_part, self.at - 1)]

            def snapshot(self) -> None:
                source.snapshots += 1

        return Part()


class Kept(FixedPartitionedSink[Item, None]):
    """Keeps what comes, by part and sender."""

    def __init__(self, workers: int) -> None:
        self.workers, self.parts = workers, list[str]()
        self.items: dict[tuple[str, str], list[int]] = defaultdict(list)

    def list_parts(self) -> list[str]:
        return part_names(self.workers)

    def part_fn(self, item_key: str) -> int:
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> StatefulSinkPartition[Item, None]:
        self.parts.append(for_part)
        sink = self

        class Part(StatefulSinkPartition[Item, None]):
            def write_batch(self, values: list[Item]) -> None:
                for sender, number in values:
                    sink.items[for_part, sender].append(number)

            def snapshot(self) -> None:
                return None

        return Part()


def flowing(source: Numbers, sink: Kept) -> Dataflow:
    """Each number goes to every part of the sink."""
    flow = Dataflow("order")
    numbers = op.input("read", flow, source)
    op.output("write", op.flat_map("to_all", numbers, lambda item: [(part, item) for part in sink.list_parts()]), sink)
    return flow


def ran(workers: int, cluster: dict[str, Any]) -> tuple[list[str], list[str], dict[tuple[str, str], list[int]]]:
    """The parts of one process, and what came to it."""
    source, sink = Numbers(workers), Kept(workers)
    cli_main(flowing(source, sink), workers_per_process=1, **cluster)
    return source.parts, sink.parts, dict(sink.items)


def tell(workers: int, cluster: dict[str, Any], to: Connection) -> None:
    to.send(ran(workers, cluster))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_nth_process_gets_the_nth_reader_and_writer_and_items_keep_their_order(workers: int) -> None:
    if workers == 1:
        found = [ran(1, {})]
    else:
        context = multiprocessing.get_context("spawn")
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
        for one in sockets:
            one.close()
        pipes = [context.Pipe(duplex=False) for _ in range(workers)]
        clusters = [{"process_id": n, "addresses": addresses} for n in range(workers)]
        arguments = [(workers, cluster, to) for cluster, (_, to) in zip(clusters, pipes, strict=True)]
        processes = [context.Process(target=tell, args=some, daemon=True) for some in arguments]
        for process in processes:
            process.start()
        found = [out.recv() for out, _ in pipes]
        for process in processes:
            process.join()
    for n, (read, written, items) in enumerate(found):
        part = part_names(workers)[n]
        assert (read, written) == ([part], [part])
        assert items == {(part, sender): list(range(100)) for sender in part_names(workers)}


def test_readers_wait_at_the_end_of_an_epoch_and_ours_outlasts_what_they_read() -> None:
    """An epoch ends with a snapshot of each part, once all writers have what was read in it."""
    counted = {}
    for epoch in (timedelta(0), EPOCH):
        source = Numbers(1)
        cli_main(flowing(source, Kept(1)), workers_per_process=1, epoch_interval=epoch)
        counted[epoch] = source.snapshots
    assert counted[timedelta(0)] > 50
    assert counted[EPOCH] <= 2


def test_no_part_of_a_flow_has_anything_for_a_snapshot() -> None:
    """Whatever the number of entities: positions are in the stores, and Bytewax is given no recovery store."""
    nobody: Any = None
    sinks = LaneSink(lambda worker: nobody, 1, Stop()), ArchiveSink(nobody, 1)
    assert [sink.build_part("", "0", None).snapshot() for sink in sinks] == [None, None]
    assert Reader.snapshot(nobody) is None
