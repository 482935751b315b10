"""Processes write one table at once, on a folder and on S3, and nothing is lost: Delta's commits are conditional."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from forebay.ingest.batch import EVENT_ID
from forebay.offline.tables import OfflineStore
from tests.stores.test_offline_archive import SOURCE

COMMITS, EACH = 8, 3
CHECKOUT = Path(__file__).parents[2]
WRITER = f"""
import sys
from forebay.offline.archive import event_order
from forebay.offline.tables import OfflineStore
from forebay.offline.upkeep import keep_up
from tests.stores.test_offline_archive import NOW_US, SOURCE, batch

url, partition = sys.argv[1:]
archive = OfflineStore(url).archive(SOURCE)
print("ready", flush=True)
sys.stdin.readline()
for number in range({COMMITS}):
    if partition == "upkeep":
        keep_up(archive.table, event_order(SOURCE, ["user"]))
    else:
        archive.append([batch(number * {EACH}, (number + 1) * {EACH} + 1, partition)], NOW_US)
"""


def start(url: str, partition: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, url, partition]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_processes_that_append_and_keep_up_at_once_lose_nothing(offline_url: str) -> None:
    """Two partitions, and one of them by two processes, each of which takes itself for the only one."""
    writers = [start(offline_url, name) for name in ("p0", "p1", "p1", "upkeep")]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0, 0, 0, 0]
    archive, last = OfflineStore(offline_url).archive(SOURCE), COMMITS * EACH + 1
    found = archive.scan([EVENT_ID, "source_partition", "source_offset"])
    rows = sorted(zip(found["source_partition"].to_pylist(), found["source_offset"].to_pylist(), strict=True))
    assert rows == [(name, offset) for name in ("p0", "p1") for offset in range(last)]
    assert {name: one.next_offset for name, one in archive.positions().items()} == {"p0": last, "p1": last}
