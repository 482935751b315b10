"""The distinct rows of (entity, instant) that a call asks for, and what all views of their entity need of them.

May live here: what depends on the rows asked alone, made once for all views: their order, and a table of their keys.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from forebay.calls.keyed import Keyed
from forebay.core.lookup import KeyLookup
from forebay.core.places import Places, in_order
from forebay.core.values import FeatureColumn
from forebay.language.entity import Entity

Ints = npt.NDArray[np.int64]
DISTINCT_SHARE = 0.8
"""Where fewer rows are distinct, it pays to answer each once."""


@dataclass(frozen=True)
class RowsAsked:
    """Rows about entities of one kind, each at an instant, and where each row of the call is among them (`None`: they
    are the rows of the call).
    """

    keyed: Keyed
    instants_us: Ints
    inverse: npt.NDArray[np.intp] | None = None
    _lookups: dict[bool, KeyLookup] = field(default_factory=dict)

    @classmethod
    def of(cls, keyed: Keyed, instants_us: Ints) -> RowsAsked:
        """The distinct rows of a call."""
        code, us, inverse = distinct(keyed.code, instants_us)
        return cls(Keyed(keyed.keys, code), us, inverse)

    def answered(self, answer: Callable[[RowsAsked], list[FeatureColumn]]) -> list[FeatureColumn]:
        """What `answer` says of each distinct row, for all rows of the call."""
        columns = answer(self)
        return columns if self.inverse is None else [column.take(self.inverse) for column in columns]

    @functools.cached_property
    def places(self) -> Places:
        """The rows in order."""
        return Places(self.keyed.code, self.instants_us)

    def lookup(self, entity: Entity, rows: int) -> KeyLookup:
        """What finds their entities among about so many stored rows."""
        many = KeyLookup.is_compiled(len(self.keyed.keys), rows)
        if many not in self._lookups:
            self._lookups[many] = KeyLookup(entity, self.keyed.keys, rows)
        return self._lookups[many]


def distinct(code: Ints, us: Ints) -> tuple[Ints, Ints, npt.NDArray[np.intp] | None]:
    """The distinct pairs, and for each row its pair; nothing is moved (`None`) where most rows are distinct.

    >>> distinct(np.array([1, 0, 1, 1]), np.array([5, 5, 5, 5]))
    (array([0, 1]), array([5, 5]), array([1, 0, 1, 1]))
    """
    if _mostly_distinct(code, us):
        return code, us, None
    order = in_order(code, us)
    first = np.ones(len(order), np.bool_)
    first[1:] = (code[order][1:] != code[order][:-1]) | (us[order][1:] != us[order][:-1])
    inverse = np.empty(len(order), np.intp)
    inverse[order] = np.cumsum(first) - 1
    chosen = order[first]
    return code[chosen], us[chosen], inverse


def _mostly_distinct(code: Ints, us: Ints) -> bool:
    """Whether more than four fifths of the pairs are distinct, by a hash of them: sorting one column is far cheaper."""
    mixed = np.sort(code.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + us.astype(np.uint64))
    return bool(np.count_nonzero(mixed[1:] != mixed[:-1]) + 1 > DISTINCT_SHARE * max(len(mixed), 2))
