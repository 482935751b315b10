"""Events as the core sees them: the columns of one windowed view's events, in any order."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.algebra.lifted import Lifted
from forebay.core.identity import slots_of

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]
_ZEROS, _TRUE = bytes(64), b"\1"


def unused(dtype: str, count: int) -> Array:
    """A column that the reader has no use for: `count` zeros in the memory of one."""
    kind = np.dtype(dtype)
    zero = _ZEROS if kind.itemsize <= len(_ZEROS) else bytes(kind.itemsize)
    return np.ndarray((count,), kind, zero, 0, (0,))  # a tenth of what `np.broadcast_to` takes


def always(count: int) -> npt.NDArray[np.bool_]:
    """A mask of `count` rows that are all there, in the memory of one."""
    return np.ndarray((count,), np.bool_, _TRUE, 0, (0,))


def unnamed(count: int) -> pa.StringArray:
    """Entities whose names nobody asks for."""
    return pa.repeat("", count)


def united(parts: Sequence[pa.StringArray]) -> tuple[pa.StringArray, list[Ints]]:
    """The entities of some lists, each once; and the numbers that those of each list have there. Those of the first
    list, where it names none twice, keep theirs. A list that is there many times is looked at once.
    """
    distinct = {id(part): part for part in parts}
    coded = pa.concat_arrays([*distinct.values()]).dictionary_encode()
    edges = np.cumsum([len(part) for part in distinct.values()])[:-1]
    numbers = dict(zip(distinct, np.split(np.asarray(coded.indices).astype(np.int64), edges), strict=True))
    return coded.dictionary, [numbers[id(part)] for part in parts]


@dataclass(frozen=True)
class Column:
    """Stored values of one column, and which of them are there."""

    values: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]

    def take(self, rows: npt.NDArray[np.intp]) -> Column:
        """Some rows, in the order given."""
        return Column(self.values.take(rows, axis=0), taken(self.valid, rows))

    @property
    def is_whole(self) -> bool:
        """Whether all values are there."""
        return bool(self.valid[:1].all() if is_unused(self.valid) else self.valid.all())


@dataclass(frozen=True)
class Events:
    """Events of one windowed view: `where` is applied, events with a null key are left out.

    `keys` are the texts of the distinct entities, an Arrow array so that no entity costs an object on its way to the
    stores; `code` is an index into them; `ts` are instants, `ids` UTF-8 event ids, `offset` positions in the source;
    `columns` are those that the aggregations asked for need. All but `keys` have one length; ids and positions that the
    reader has no use for are `unused`.
    """

    keys: pa.StringArray
    code: Ints
    ts: Ints
    ids: npt.NDArray[Any]
    offset: Ints
    columns: dict[str, Column]

    def __len__(self) -> int:
        return len(self.code)

    @functools.cached_property
    def slots(self) -> Ints:
        """The slot of each entity."""
        return slots_of(self.keys)

    def take(self, rows: npt.NDArray[np.intp]) -> Events:
        """Some events, in the order given; entities without one are dropped from `keys`."""
        code = self.code[rows]
        is_used = np.zeros(len(self.keys), np.bool_)
        is_used[code] = True
        used, renumbered = np.flatnonzero(is_used), np.cumsum(is_used) - 1
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        keys = self.keys.take(pa.array(used))
        ids = self.ids.take(rows)
        taken = Events(keys, renumbered[code], self.ts[rows], ids, self.offset[rows], columns)
        if "slots" in vars(self):
            vars(taken)["slots"] = self.slots[used]
        return taken

    def part(self, some: slice) -> Events:
        """Some events, of the same `keys`; nothing is copied."""
        columns = {name: Column(column.values[some], column.valid[some]) for name, column in self.columns.items()}
        return self._alike(
            Events(self.keys, self.code[some], self.ts[some], self.ids[some], self.offset[some], columns)
        )

    def at(self, offset: Ints) -> Events:
        """The same events at other positions."""
        return self._alike(replace(self, offset=offset))

    def _alike(self, events: Events) -> Events:
        """Events of the same keys, whose slots are known if they are known here."""
        if "slots" in vars(self):
            vars(events)["slots"] = self.slots
        return events

    @staticmethod
    def concatenated(parts: Sequence[Events], keys: pa.StringArray, codes: Sequence[Ints]) -> Events:
        """Some (at least one) as one, all of them at hand; their entities are numbered anew, by `codes` of each."""
        columns = {
            name: Column(
                np.concatenate([part.columns[name].values for part in parts]),
                np.concatenate([part.columns[name].valid for part in parts]),
            )
            for name in parts[0].columns
        }
        return Events(
            keys=keys,
            code=np.concatenate(codes),
            ts=np.concatenate([part.ts for part in parts]),
            ids=np.concatenate([part.ids for part in parts]),
            offset=np.concatenate([part.offset for part in parts]),
            columns=columns,
        )

    @staticmethod
    def joined(pieces: Iterable[Events], room: int) -> Events:
        """Pieces (at least one) with the same `keys` as one, copied as they come; `room` guesses how many events."""
        keys = unnamed(0)
        whole: dict[tuple[str, str], _Growing] = {}
        for piece in pieces:
            keys, parts = piece.keys, _arrays(piece)
            if not whole or not len(whole["", "code"].array()):  # an empty array doesn't show whether it is used
                whole = {name: _Growing(array, room) for name, array in parts.items()}
            for name, array in parts.items():
                whole[name].add(array)
        arrays = {name: growing.array() for name, growing in whole.items()}
        heads = [arrays["", name] for name in ("code", "ts", "ids", "offset")]
        names = [name for kind, name in arrays if kind == "values"]
        columns = {name: Column(arrays["values", name], arrays["valid", name]) for name in names}
        return Events(keys, heads[0], heads[1], heads[2], heads[3], columns)

    def lifted(self, names: Collection[str], rows: npt.NDArray[np.intp]) -> dict[str, Lifted]:
        """Columns with the ts and ids of their events, ready to be lifted into partials; each is gathered once.

        Without a name: the events themselves, of which each has one.
        """
        ts, ids, count = self.ts[rows], taken(self.ids, rows), len(rows)
        columns = {name: self.columns[name].take(rows) for name in dict.fromkeys(names) if name}
        if "" in names:
            columns[""] = Column(unused("<i8", count), always(count))
        return {name: Lifted(column.values, column.valid, ts, ids) for name, column in columns.items()}


def is_unused(array: Array) -> bool:
    """Whether it is a column that nobody has a use for: all of it is one element."""
    return array.strides == (0,)


def taken(array: Array, rows: npt.NDArray[np.signedinteger[Any]]) -> Array:
    """Some rows of a column, by their numbers; of an unused one just as many.

    Not by `array[rows]`: of texts NumPy would hold Python's lock all the while, and take longer (ADR 0231).
    """
    if not is_unused(array) or not len(array):
        return array.take(rows, axis=0)
    return array[: len(rows)] if len(rows) <= len(array) else np.broadcast_to(array[:1], len(rows))


def _arrays(events: Events) -> dict[tuple[str, str], Array]:
    heads = {"code": events.code, "ts": events.ts, "ids": events.ids, "offset": events.offset}
    values = {("values", name): column.values for name, column in events.columns.items()}
    valid = {("valid", name): column.valid for name, column in events.columns.items()}
    return {("", name): array for name, array in heads.items()} | values | valid


class _Growing:
    """An array that others are appended to. Unused ones that are all alike take no memory, nor does room left over."""

    def __init__(self, like: Array, room: int) -> None:
        self._room, self._count = room, 0
        self._one = like[:1].copy() if is_unused(like) else None
        self._held = np.empty(0 if is_unused(like) else room, like.dtype)

    def add(self, array: Array) -> None:
        first, self._count = self._count, self._count + len(array)
        if self._one is not None:
            if is_unused(array) and (array[:1] == self._one).all():
                return
            self._held = np.empty(max(self._room, self._count), self._one.dtype)
            self._held[:first], self._one = self._one, None
        if self._count > len(self._held):
            held = np.empty(max(self._count, 2 * first), self._held.dtype)
            held[:first] = self._held[:first]
            self._held = held
        self._held[first : self._count] = array

    def array(self) -> Array:
        if self._one is None or not self._count:
            return self._held[: self._count]
        return np.broadcast_to(self._one[0], self._count)
