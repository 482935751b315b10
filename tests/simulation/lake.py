"""The offline store in memory: the contract of `LakeTable`, for runs in which hundreds of commits must cost nothing.

Lives here: what `LakeTable` promises, on Arrow tables in a dictionary. `test_lake.py` runs the same suite on it and on
Delta, and one seed in twenty runs on Delta. Invariant: a commit is atomic, and prepared on the positions that it
follows.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from forebay.offline.commit import Commit, Position
from forebay.offline.lake_table import LakeTable

_DATES = re.compile(r"date >= '(\S+)' AND date <= '(\S+)'")


@dataclass
class _Stored:
    rows: pa.Table
    positions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Rows:
    """As `forebay.offline.reading.Reading` and its only row group."""

    rows: pa.Table
    columns: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        return self.table().schema

    def __len__(self) -> int:
        return len(self.rows)

    def table(self) -> pa.Table:
        return self.read()

    def batches(self) -> Iterator[pa.Table]:
        yield self.read()

    def groups(self, threads: int) -> Iterator[_Rows]:
        yield self

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        return self.rows.select(list(self.columns if columns is None else columns))


class _MovedError(Exception):
    """Somebody moved a position between the preparation of a commit and its end."""


class _Files:
    """Rows that are written now and committed later."""

    def __init__(self) -> None:
        self.written: list[pa.Table] = []

    def write(self, rows: pa.Table) -> None:
        self.written.append(rows)

    def flush(self) -> None:
        """Nothing is held."""


class MemoryLake:
    """All tables of all locations; `install` puts it in the place of Delta."""

    def __init__(self) -> None:
        self.tables: dict[tuple[str, str], _Stored] = {}

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let every `LakeTable` keep its rows here."""
        lake = self

        def of(table: LakeTable) -> _Stored | None:
            return lake.tables.get((table.location.url, table.path))

        def made(table: LakeTable) -> _Stored:
            return lake.tables.setdefault((table.location.url, table.path), _Stored(table.schema.empty_table()))

        def position(table: LakeTable, app_id: str) -> int | None:
            stored = of(table)
            return None if stored is None else stored.positions.get(app_id)

        def positions(table: LakeTable) -> dict[str, int]:
            stored = of(table)
            return {} if stored is None else dict(stored.positions)

        def commit(table: LakeTable, prepare: Callable[[Position], Commit | None], kept: Callable[[], Any]) -> bool:
            while True:
                seen = positions(table)
                prepared = table.prepared(prepare, lambda app_id: position(table, app_id))
                if prepared is None:
                    return False
                with contextlib.suppress(_MovedError):  # prepared anew, as after a conflict of Delta's
                    table._write(seen, prepared, kept=kept)  # the real one's last step: where faults come in
                    return True

        def write(table: LakeTable, snapshot: Any, prepared: Commit, *, kept: Callable[[], Any]) -> None:
            stored = made(table)
            if any(stored.positions.get(name) != snapshot.get(name) for name in prepared.positions):
                raise _MovedError
            new = prepared.rows.read_all() if isinstance(prepared.rows, pa.RecordBatchReader) else prepared.rows
            stored.rows = pa.concat_tables([kept(), new.select(table.schema.names).cast(table.schema)])
            stored.positions |= prepared.positions

        def append(table: LakeTable, prepare: Callable[[Position], Commit | None]) -> bool:
            return commit(table, prepare, lambda: made(table).rows)

        def overwrite(table: LakeTable, predicate: str, prepared: Commit) -> None:
            found = _DATES.fullmatch(predicate)
            assert found, predicate
            day = pc.field("date")
            outside = ~((day >= found[1]) & (day <= found[2]))
            commit(table, lambda _: prepared, lambda: made(table).rows.filter(outside))

        def reading(table: LakeTable, columns: Sequence[str], where: Any = None, *_: Any) -> _Rows:
            stored = of(table)
            rows = table.schema.empty_table() if stored is None else stored.rows
            return _Rows(rows if where is None else rows.filter(where), tuple(columns))

        def rows_by_date(table: LakeTable) -> Mapping[str, int]:
            counts = reading(table, ["date"]).table()["date"].combine_chunks().value_counts().to_pylist()
            return {count["values"]: count["counts"] for count in sorted(counts, key=lambda one: str(one["values"]))}

        def append_files(table: LakeTable, files: _Files, names: Mapping[str, int]) -> bool:
            known = positions(table)
            new = Commit(pa.concat_tables([table.schema.empty_table(), *files.written]), names)
            return append(table, lambda _: None if known.keys() & names.keys() else new)

        mine = (append_files, position, positions, append, overwrite, reading, rows_by_date)
        methods = {method.__name__: method for method in mine}
        for name, method in {**methods, "files": lambda table, instant: _Files(), "_write": write}.items():
            patch.setattr(LakeTable, name, method)
