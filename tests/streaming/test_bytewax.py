"""What the flow relies on in Bytewax: one part of a source and of a sink for each worker, and items in their order."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence

import bytewax.operators as op
import pytest
from bytewax._bytewax import cli_main
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from streaming.routing import WORKERS_MAX, part_names

Item = tuple[str, int]


class Numbers(FixedPartitionedSource[Item, None]):
    """Each part yields its name with 0, 1, … 99."""

    def __init__(self, workers: int) -> None:
        self.workers, self.threads = workers, dict[str, int]()

    def list_parts(self) -> list[str]:
        return part_names(self.workers)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> StatefulSourcePartition[Item, None]:
        threads = self.threads

        class Part(StatefulSourcePartition[Item, None]):
            at = 0

            def next_batch(self) -> Sequence[Item]:
                threads[for_part] = threading.get_ident()
                if self.at == 100:
                    raise StopIteration
                self.at += 1
                return [(for_part, self.at - 1)]

            def snapshot(self) -> None:
                return None

        return Part()


class Kept(FixedPartitionedSink[Item, None]):
    """Keeps what comes, by part and sender."""

    def __init__(self, workers: int) -> None:
        self.workers, self.threads = workers, dict[str, int]()
        self.items: dict[tuple[str, str], list[int]] = defaultdict(list)

    def list_parts(self) -> list[str]:
        return part_names(self.workers)

    def part_fn(self, item_key: str) -> int:
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> StatefulSinkPartition[Item, None]:
        sink = self

        class Part(StatefulSinkPartition[Item, None]):
            def write_batch(self, values: list[Item]) -> None:
                sink.threads[for_part] = threading.get_ident()
                for sender, number in values:
                    sink.items[for_part, sender].append(number)

            def snapshot(self) -> None:
                return None

        return Part()


@pytest.mark.parametrize("workers", [1, 2, 3, WORKERS_MAX])
def test_each_worker_gets_one_reader_and_one_writer_and_items_keep_their_order(workers: int) -> None:
    source, sink = Numbers(workers), Kept(workers)
    flow = Dataflow("order")
    numbers = op.input("read", flow, source)
    to_all = op.flat_map("to_all", numbers, lambda item: [(part, item) for part in part_names(workers)])
    op.output("write", to_all, sink)
    cli_main(flow, workers_per_process=workers)
    assert len(set(source.threads.values())) == workers
    assert source.threads == sink.threads
    assert set(sink.items) == {(part, sender) for part in part_names(workers) for sender in part_names(workers)}
    assert all(numbers == list(range(100)) for numbers in sink.items.values())
