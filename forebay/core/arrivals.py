"""Events as they come, piece by piece, for rows that ask: kept as they are while they are few, cut once they are many.

The few are answered by `forebay.core.ranges`. From `ranges.SWEPT_EVENTS` on each piece is cut by chunk of entities as
soon as it is there (`forebay.core.chunked`), by whoever brings it, and `forebay.core.sweep` answers.

Ids are wide, and only decide between events of one entity and instant. So a piece may come without, and say how they
can be had (ADR 0191).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from forebay.core import ranges
from forebay.core.events import Events
from forebay.core.layout import Layout
from forebay.core.threads import on_threads
from forebay.core.values import FeatureColumn

if TYPE_CHECKING:
    from forebay.core.chunked import Chunking, Piece

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]
Ids = Callable[[Array], Array]
"""The ids of some events, by numbers."""


@dataclass(frozen=True)
class Arrived:
    """Events as they came; where they do not hold their ids, how these can be had by numbers, which are `offset`."""

    events: Events
    ids: Ids | None = None

    def __len__(self) -> int:
        return len(self.events)

    def whole(self) -> Events:
        """The events with their ids."""
        return self.events if self.ids is None else replace(self.events, ids=self.ids(self.events.offset))


class Arrivals:
    """The events of one call, of which about `expected` may come, for rows that ask about `entities` entities.

    Where the events are a part (some entities) of `part_of`, they are answered as all of these would be.
    """

    def __init__(self, entities: int, expected: int, part_of: int = 0) -> None:
        self._entities, self._expected, self._count = entities, expected, part_of

    def take(self, arrived: Arrived) -> Arrived | Piece:
        """Events as they are kept until they are answered. Several threads may do this."""
        self._count += len(arrived)  # which thread cuts the first one doesn't matter
        return self._cut(arrived) if ranges.is_swept(self._count) else arrived

    def answer(
        self,
        layout: Layout,
        taken: Sequence[Arrived | Piece],
        row_code: Ints,
        row_us: Ints,
        names: Sequence[str],
        threads: int,
        *,
        bare: bool = False,
    ) -> list[FeatureColumn]:
        """The features of rows, as `ranges.answer_events`, of all that was taken (at least one piece)."""
        if not ranges.is_swept(self._count):
            events = Events.joined((one.whole() for one in taken if isinstance(one, Arrived)), 0)
            return ranges.answer_ranges(layout, events, row_code, row_us, names)
        from forebay.core.sweep import answer_pieces

        pieces = on_threads(lambda one: self._cut(one) if isinstance(one, Arrived) else one, taken, threads)
        return answer_pieces(layout, pieces, self._chunking, row_code, row_us, names, threads, bare=bare)

    @property
    def _chunking(self) -> Chunking:
        from forebay.core.chunked import Chunking  # numba takes a second to load

        return Chunking.of(self._entities, self._expected)

    def _cut(self, arrived: Arrived) -> Piece:
        from forebay.core.chunked import Piece

        return Piece.of(arrived, self._chunking)
