"""Rows of batch views and instants become values: the same two steps online and in training.

    as_of    which row of its entity holds at an instant: the newest `event_timestamp` ≤ T and, of equal ones, the
             latest `created_timestamp`, whenever it was created
    finish   the row's values, with defaults and TTL: expired iff T − event_timestamp > ttl; a null in a row is the
             feature's default (`DEFAULT_MISSING`)

The online store keeps only the newest row of an entity, so there `as_of` has been done by whoever published;
`finish_rows` is called by both paths. Pure: nothing here opens or asks the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.events import Column
from forebay.core.identity import entity_keys
from forebay.core.values import NO_INSTANT, FeatureColumn, Status, arrow_type
from forebay.errors import UnknownNameError
from forebay.language.types import AnyType, DecimalType, StringType, TimestampType
from forebay.language.view import BatchView

Ints = npt.NDArray[np.int64]
EVENT_TIMESTAMP, CREATED_TIMESTAMP = "event_timestamp", "created_timestamp"
_INSTANT = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Rows:
    """Rows of a batch view in any order: `code` indexes the distinct entity `keys`; all arrays have one length."""

    keys: list[str]
    code: Ints
    event_us: Ints
    created_us: Ints
    columns: dict[str, Column]

    def __len__(self) -> int:
        return len(self.code)

    @classmethod
    def of(cls, view: BatchView, table: pa.Table, names: Sequence[str] | None = None) -> Rows:
        """The rows of a table with the view's keys, features, `event_timestamp` and `created_timestamp`.

        Rows with a null key are left out.
        """
        keys = entity_keys(view.entity, {name: table[name] for name in view.entity.keys})
        if keys.null_count:
            table, keys = table.filter(keys.is_valid()), keys.drop_null()
        coded = keys.dictionary_encode()
        features = view.outputs()
        return cls(
            coded.dictionary.to_pylist(),
            coded.indices.to_numpy().astype(np.int64),
            _instants(table[EVENT_TIMESTAMP]),
            _instants(table[CREATED_TIMESTAMP]),
            {name: stored(table[name], features[name].type) for name in wanted(view, names)},
        )


def batch_answer(
    view: BatchView, rows: Rows, row_code: Ints, row_us: Ints, names: Sequence[str] | None = None
) -> list[FeatureColumn]:
    """The features of m rows: `row_code` is each row's entity in `rows.keys` (−1: none), `row_us` its instant."""
    chosen = as_of(rows, row_code, row_us)
    found = chosen >= 0
    event_us = np.full(len(chosen), NO_INSTANT, np.int64)
    event_us[found] = rows.event_us[chosen[found]]
    columns = {}
    for name in wanted(view, names):
        column, kind = rows.columns[name], view.outputs()[name].type
        values, valid = np.zeros(len(chosen), kind.storage), np.zeros(len(chosen), np.bool_)
        values[found], valid[found] = column.values[chosen[found]], column.valid[chosen[found]]
        columns[name] = Column(values, valid)
    return finish_rows(view, columns, event_us, row_us, names)


def finish_rows(
    view: BatchView,
    columns: Mapping[str, Column],
    event_us: Ints,
    instants_us: Ints,
    names: Sequence[str] | None = None,
) -> list[FeatureColumn]:
    """The features of the rows that hold at some instants; `event_us` is `NO_INSTANT` where there is no row."""
    ttl_us = view.ttl_us
    missing = event_us == NO_INSTANT
    expired = np.zeros(len(missing), np.bool_)
    if ttl_us is not None:
        expired[~missing] = instants_us[~missing] - event_us[~missing] > ttl_us
    finished = []
    for name in wanted(view, names):
        result = FeatureColumn.of_defaults(view.outputs()[name], len(missing))
        result.status[expired] = Status.DEFAULT_EXPIRED
        result.event_us[:] = event_us
        good = columns[name].valid & ~missing & ~expired
        result.values[good] = columns[name].values[good]
        result.valid[good] = True
        result.status[good] = Status.PRESENT
        finished.append(result)
    return finished


def as_of(rows: Rows, row_code: Ints, row_us: Ints) -> npt.NDArray[np.intp]:
    """For each (entity, instant) the row that holds, −1 where there is none.

    Entity and instant become one ascending integer, so that one binary search answers all:

        event_us     3      7      7'     9          (7' was created later than 7)
        holds        [──────)      [──────[────…     at T = 7 it is 7', at T = 2 none
    """
    if not len(rows):
        return np.full(len(row_code), -1, np.intp)
    order = np.lexsort((rows.created_us, rows.event_us, rows.code))
    instants = np.unique(rows.event_us)
    width = len(instants) + 1
    have = rows.code[order] * width + np.searchsorted(instants, rows.event_us[order], "right")
    want = row_code * width + np.searchsorted(instants, row_us, "right")
    found = np.searchsorted(have, want, "right") - 1
    holds = (found >= 0) & (row_code >= 0)
    holds[holds] = rows.code[order[found[holds]]] == row_code[holds]
    return np.where(holds, order[found], -1)


def stored(array: pa.Array | pa.ChunkedArray, kind: AnyType) -> Column:
    """The stored form of an Arrow column of a type: units and a mask. Null, and NaN of a float, is not valid."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], array.type)
    whole = whole.cast(arrow_type(kind))
    valid = np.asarray(whole.is_valid())
    if isinstance(kind, DecimalType):
        words = np.frombuffer(whole.buffers()[1], np.int64).reshape(-1, 2) if len(whole) else np.empty((0, 2), np.int64)
        units = words[whole.offset : whole.offset + len(whole), 0]
        return Column(np.where(valid, units, 0), valid)
    if isinstance(kind, StringType):
        return Column(_texts(whole, kind), valid)
    if isinstance(kind, TimestampType):
        whole = whole.cast(pa.int64())
    values = np.asarray(whole.fill_null(False if pa.types.is_boolean(whole.type) else 0)).astype(kind.storage)
    if values.dtype.kind == "f":
        valid = valid & ~np.isnan(values)
        values = np.where(valid, values, 0.0)
    return Column(values, valid)


def wanted(view: BatchView, names: Sequence[str] | None) -> list[str]:
    """The names asked for, or all of the view's. Raises `UnknownNameError`."""
    known = view.outputs()
    for name in names or ():
        if name not in known:
            raise UnknownNameError.of(f"feature of view {view.key!r} named", name, known)
    return list(known if names is None else names)


def _texts(array: pa.Array, kind: StringType) -> npt.NDArray[Any]:
    texts = array.to_pylist()
    if kind.max_bytes is None:
        return np.array([*texts, None], object)[:-1]
    return np.array([b"" if text is None else text.encode() for text in texts], kind.storage)


def _instants(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.cast(_INSTANT, safe=False).cast(pa.int64()).to_numpy())
