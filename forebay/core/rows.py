"""Rows of batch views and instants become values: the same two steps online and in training.

    as of    which row of its entity holds at an instant: `forebay.core.asof`
    finish   the row's values, with defaults and TTL: expired iff T − event_timestamp > ttl; a null in a row is the
             feature's default (`DEFAULT_MISSING`), and so is a row that is forgotten: `REMEMBERED_US` after it expired

The online store keeps only the newest row of an entity, so there the first step has been done by whoever published;
`finish_rows` is called by both paths. Pure: nothing here opens or asks the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core import lists
from forebay.core.asof import AsOf
from forebay.core.events import Column, always, is_unused, unused
from forebay.core.identity import entity_keys
from forebay.core.places import Places
from forebay.core.threads import on_threads
from forebay.core.values import NO_INSTANT, FeatureColumn, Status, arrow_type
from forebay.errors import UnknownNameError
from forebay.instants import DAY_US
from forebay.language.types import DecimalType, FeatureType, ListType, StringType, TimestampType, VectorType
from forebay.language.view import BatchView

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
EVENT_TIMESTAMP, CREATED_TIMESTAMP = "event_timestamp", "created_timestamp"
LATEST_US = 2**61
REMEMBERED_US = 365 * DAY_US
"""For so long an expired row is known to have been there; then the online store may drop it (ADR 0053)."""
_INSTANT = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Rows:
    """Rows of a batch view in any order: `code` indexes the distinct entity `keys`, texts of Arrow; all other arrays
    have one length.
    """

    keys: pa.Array
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
            coded.dictionary,
            coded.indices.to_numpy().astype(np.int64),
            _instants(table[EVENT_TIMESTAMP]),
            _instants(table[CREATED_TIMESTAMP]),
            {name: stored(table[name], features[name].type) for name in wanted(view, names)},
        )


def finish_rows(
    view: BatchView,
    columns: Mapping[str, Column],
    event_us: Ints,
    instants_us: Ints,
    names: Sequence[str] | None = None,
    *,
    threads: int = 1,
    bare: bool = False,
) -> list[FeatureColumn]:
    """The features of the rows that hold at some instants; `event_us` is `NO_INSTANT` where there is no row."""
    missing, expired = _missing_expired(view, event_us, instants_us)
    event_us = np.where(missing, NO_INSTANT, event_us)
    features, current = view.outputs(), ~(missing | expired)

    def finished(name: str) -> FeatureColumn:
        good = columns[name].valid & current
        if good.all():
            present = unused("<u1", len(good)) if bare else np.full(len(good), Status.PRESENT, np.uint8)
            instants = unused("<i8", len(good)) if bare else event_us.copy()
            return FeatureColumn(features[name], columns[name].values, good, present, instants)
        result = FeatureColumn.of_defaults(features[name], len(missing), bare=bare)
        result.values[good] = columns[name].values[good]
        if not is_unused(result.valid):
            result.valid[good] = True
        if not bare:
            result.status[expired] = Status.DEFAULT_EXPIRED
            result.status[good] = Status.PRESENT
            result.event_us[:] = event_us
        return result

    return on_threads(finished, wanted(view, names), threads)


def finish_texts(
    view: BatchView,
    texts: Mapping[str, pa.Array],
    event_us: Ints,
    instants_us: Ints,
) -> list[FeatureColumn]:
    """As `finish_rows` of features of text, which stay Arrow's: bare columns."""
    missing, expired = _missing_expired(view, event_us, instants_us)
    current, features = pa.array(~(missing | expired)), view.outputs()
    finished = []
    for name, array in texts.items():
        good = pc.and_(current, array.is_valid())
        default = pa.scalar(features[name].default, pa.string())
        finished.append(FeatureColumn.of_arrow(features[name], pc.if_else(good, array, default)))
    return finished


def _missing_expired(view: BatchView, event_us: Ints, instants_us: Ints) -> tuple[Mask, Mask]:
    """Which rows there are none of (or that are forgotten), and which have expired."""
    missing = event_us == NO_INSTANT
    if view.ttl_us is None:
        return missing, np.zeros(len(missing), np.bool_)
    age_us = np.where(missing, 0, instants_us - np.where(missing, instants_us, event_us))
    missing = missing | (age_us > view.ttl_us + REMEMBERED_US)
    return missing, ~missing & (age_us > view.ttl_us)


def newest(rows: Rows) -> npt.NDArray[np.int64]:
    """The row of each entity that holds at the end of time."""
    if len(rows) == len(rows.keys):
        return np.argsort(rows.code)
    asked = AsOf(Places(np.arange(len(rows.keys)), np.full(len(rows.keys), LATEST_US)), len(rows))
    asked.offer(rows.code, rows.event_us, rows.event_us, rows.created_us, np.arange(len(rows)))
    return asked.holding()[0]


def stored(array: pa.Array | pa.ChunkedArray, kind: FeatureType) -> Column:
    """The stored form of an Arrow column of a type: units and a mask. Null, and NaN of a float, is not valid."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], array.type)
    whole = whole.cast(arrow_type(kind))
    if isinstance(kind, ListType | VectorType):
        return Column(*lists.from_arrow(whole, lambda held: stored(held, lists.element(kind)).values))
    valid: Mask = np.asarray(whole.is_valid()) if whole.null_count else always(len(whole))
    if isinstance(kind, DecimalType):
        words = np.frombuffer(whole.buffers()[1], np.int64).reshape(-1, 2) if len(whole) else np.empty((0, 2), np.int64)
        units = words[whole.offset : whole.offset + len(whole), 0]
        return Column(np.where(valid, units, 0) if whole.null_count else units, valid)
    if isinstance(kind, StringType):
        return Column(_texts(whole, kind), valid)
    if isinstance(kind, TimestampType):
        whole = whole.cast(pa.int64())
    if whole.null_count:
        whole = whole.fill_null(False if pa.types.is_boolean(whole.type) else 0)
    values = np.asarray(whole).astype(kind.storage)
    if values.dtype.kind == "f" and np.isnan(values).any():
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
