"""What the stores hold of one view, counted and removed: for a version that is no more.

    Redis     SCAN finds the keys of its entities, step by step (`forebay.online.scan`); UNLINK frees them
    files     of each table, its log from the newest entry backward, then its data

Each step may be the last before a crash: what is left is found and removed by the next run. A table that lost the end
of its log is an older version of itself, one without a log is no table. Invariants: whoever removes holds the lease of
the view, so that nobody publishes it meanwhile; nothing of another view is touched.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from forebay.core.identity import SLOTS
from forebay.offline.location import Location
from forebay.online.connection import translated
from forebay.online.keys import Keys
from forebay.online.lease import LEASE_WAIT_S, lease_of
from forebay.online.scan import scan_view, slot_of_name
from forebay.online.wire import pack

TABLES = ("tiles", "streamed", "features", "superseded", "newest", "history")
"""The folders of the offline store that hold a table per view."""
FENCE, BESIDE = "fence", ("progress", "cut", "published")
"""What stands beside the entities in each slot; the fence of who fills the view beside the flow goes first."""
_LOG = "/_delta_log/"


@dataclass(frozen=True)
class OnlineHoldings:
    """The keys of a view in the online store, by kind (`s`, `p`, `b`, `r`), those beside them, and bytes of values."""

    keys: dict[str, int]
    beside: int
    bytes: int


@dataclass(frozen=True)
class TableHoldings:
    """A table of a view: its path, and how many files of how many bytes it has."""

    path: str
    files: int
    bytes: int


def online_holdings(client: redis.Redis, namespace: str, view: str) -> OnlineHoldings:
    """What the online store holds of a view now."""
    kinds: Counter[str] = Counter()
    size = 0
    for blobs in scan_view(client, namespace, view):
        new = set(blobs)  # what the server shows again in another step, because its table grows, counts again
        kinds.update(blob.kind for blob in new)
        size += sum(_lengths(client, [blob.name for blob in new]))
    beside = [length for length in _lengths(client, _beside(namespace, view, range(SLOTS))) if length]
    return OnlineHoldings(dict(sorted(kinds.items())), len(beside), size + sum(beside))


def remove_online(client: redis.Redis, namespace: str, view: str, *, wait_s: float = LEASE_WAIT_S) -> int:
    """Remove the keys of a view; how many there were. Raises `FencedError` where somebody is publishing it."""
    keys, lease = Keys(namespace), lease_of(client, namespace, view, 0, wait_s)
    lease.open()
    count = 0
    try:
        for share in lease.shares:
            lease.commit(share[0], [pack(("UNLINK", *keys.slots(FENCE, view, share)))])
        for blobs in scan_view(client, namespace, view):
            names = {blob.name for blob in blobs}
            for share in lease.shares:
                mine = names if len(lease.shares) == 1 else {name for name in names if slot_of_name(name) in share}
                if mine:
                    lease.commit(share[0], [pack(("UNLINK", name)) for name in mine])
            count += len(names)
        for share in lease.shares:
            lease.commit(share[0], [pack(("UNLINK", *_beside(namespace, view, share)))])
    finally:
        lease.close()
    return count


def table_holdings(location: Location, view: str) -> list[TableHoldings]:
    """The tables of a view that have files."""
    found = []
    for path in (f"{folder}/{view}" for folder in TABLES):
        sizes = [size for _, size in _files(location, path)]
        if sizes:
            found.append(TableHoldings(path, len(sizes), sum(sizes)))
    return found


def remove_tables(location: Location, view: str) -> int:
    """Remove the tables of a view; how many files they had."""
    return sum(_remove_table(location, f"{folder}/{view}") for folder in TABLES)


def _remove_table(location: Location, path: str) -> int:
    files = location.files()
    names = [name for name, _ in _files(location, path)]
    log = sorted((name for name in names if _LOG in name), reverse=True)
    with location.reached(f"removing {path}"):
        for name in [*log, *(name for name in names if _LOG not in name)]:
            files.delete_file(name)
        if not location.options:  # a folder: S3 has none
            shutil.rmtree(Path(location.at(path)), ignore_errors=True)
    return len(names)


def _files(location: Location, path: str) -> Iterator[tuple[str, int]]:
    """(path, bytes) of the files under a path; what has no bytes stands for a folder of S3."""
    from pyarrow.fs import FileSelector, FileType

    with location.reached(f"listing {path}"):
        listed: Any = location.files().get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    return ((info.path, info.size) for info in listed if info.type == FileType.File and info.size)


def _lengths(client: redis.Redis, names: Iterable[str]) -> list[int]:
    """The bytes of some values; 0 where there is none."""
    with translated(client), client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.strlen(name)
        return list(pipeline.execute())


def _beside(namespace: str, view: str, slots: Sequence[int]) -> list[str]:
    """What stands beside the entities of a view, in some slots."""
    return [name for kind in (FENCE, *BESIDE) for name in Keys(namespace).slots(kind, view, slots)]
