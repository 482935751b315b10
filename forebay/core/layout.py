"""How the tiles of a view are laid out: the rings it keeps and the record of one tile.

A view keeps one ring of tiles per distinct hop. A record is packed and of fixed size: where the tile starts, its
ring, how many events it counts, the newest of them, then the fields of its partials (`forebay.algebra.partials`).
Event ids and bounded strings lie inline. The same record is a row in memory, 1/n of a Redis value, and (typed) a row
of the tiles table. Partials of no fixed size have cells beside the records (`forebay.algebra.ragged`); a view that
needs none has none.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from forebay.algebra.partials import Fields, Partial
from forebay.language.aggregations import Aggregation
from forebay.language.feature import Feature
from forebay.language.types import AnyType
from forebay.language.view import WindowedView
from forebay.language.windows import Window

PENDING = 255
"""The ring number of a partial that is not rolled up yet: it counts in every window that holds it."""
HEAD = (("start", "<i8"), ("ring", "u1"), ("events", "<i8"), ("newest", "<i8"))


@dataclass(frozen=True, eq=False)
class Output:
    """One feature of a view: an aggregation over one of its windows."""

    feature: Feature
    aggregation: Aggregation
    column: AnyType | None
    window: Window
    ring: int

    @property
    def name(self) -> str:
        """The name of the feature."""
        return self.feature.name


@dataclass(frozen=True, eq=False)
class Layout:
    """The rings, partials and record of a view; get it by `Layout.of(view)`, which remembers."""

    view: WindowedView
    hops_us: tuple[int, ...]
    partials: tuple[Partial, ...]
    outputs: tuple[Output, ...]
    record: np.dtype[Any]
    columns: dict[str, AnyType]

    @staticmethod
    def of(view: WindowedView) -> Layout:
        """The layout of a view."""
        return _layout(view)

    @functools.cached_property
    def fingerprint(self) -> int:
        """32 bits that change whenever the record or the rings do."""
        cells = [(partial.name, self.cell(partial).descr) for partial in self.ragged]
        return zlib.crc32(repr((self.record.descr, self.hops_us, *cells)).encode())

    @functools.cached_property
    def ragged(self) -> tuple[Partial, ...]:
        """The partials that have cells."""
        return tuple(partial for partial in self.partials if partial.is_ragged)

    @functools.cached_property
    def event_bytes(self) -> int:
        """Bytes of a tile of one event."""
        return self.record.itemsize + sum(4 + self.cell(partial).itemsize for partial in self.ragged)

    def storage(self, partial: Partial) -> str:
        """The NumPy dtype of the column of a partial; for one of the events themselves it does not matter."""
        return self.columns[partial.column].storage if partial.column else "<i8"

    def zero(self, partial: Partial, count: int) -> Fields:
        """So many identities of a partial."""
        return partial.zero(self.storage(partial), self.view.event_id_bytes, count)

    def cell(self, partial: Partial) -> np.dtype[Any]:
        """The dtype of the cells of a partial."""
        return self._cells[partial]

    @functools.cached_property
    def _cells(self) -> dict[Partial, np.dtype[Any]]:
        id_bytes = self.view.event_id_bytes
        return {partial: partial.cell(self.storage(partial), id_bytes) for partial in self.ragged}

    @functools.cached_property
    def lookback_us(self) -> int | None:
        """How far before an instant an event can count: the longest window and its hop; `None` for ever."""
        lengths = [output.window for output in self.outputs]
        if any(window.length_us is None for window in lengths):
            return None
        return max((window.length_us or 0) + window.hop_us for window in lengths)

    @functools.cached_property
    def reaches_us(self) -> tuple[int | None, ...]:
        """For each ring, its longest window; `None` where a lifetime needs it."""
        reaches: list[int | None] = []
        for ring in range(len(self.hops_us)):
            lengths = [output.window.length_us for output in self.outputs if output.ring == ring]
            reaches.append(None if None in lengths else max(length for length in lengths if length is not None))
        return tuple(reaches)

    @functools.cached_property
    def fields(self) -> dict[Partial, tuple[str, ...]]:
        """The names of each partial's fields in the record."""
        id_bytes = self.view.event_id_bytes
        return {partial: tuple(partial.fields(self.storage(partial), id_bytes)) for partial in self.partials}

    def records(self, fields: Fields) -> np.ndarray[Any, Any]:
        """Records of arrays that are named as the record's fields."""
        out = np.empty(len(fields["start"]), self.record)
        for name in self.record.names or ():
            out[name] = fields[name]
        return out


@functools.lru_cache(maxsize=1024)
def _layout(view: WindowedView) -> Layout:
    windows = [(feature, feature.window(text), text) for feature in view.features for text in feature.windows]
    hops = tuple(sorted({window.hop_us for _, window, _ in windows}))
    features = view.outputs()
    outputs = tuple(
        Output(
            features[feature.feature_name(text)], feature, view.column(feature.of), window, hops.index(window.hop_us)
        )
        for feature, window, text in windows
    )
    needed = {partial for feature in view.features for partial in feature.partials(view.column(feature.of))}
    partials = tuple(sorted(needed, key=lambda partial: (partial.column, partial.kind, partial.label)))
    columns: dict[str, AnyType] = {}
    for partial in partials:
        kind = view.column(partial.column or None)
        if kind is not None:
            columns[partial.column] = kind
    fields = [
        field
        for partial in partials
        for field in partial.fields(
            columns[partial.column].storage if partial.column else "<i8", view.event_id_bytes
        ).items()
    ]
    return Layout(view, hops, partials, outputs, np.dtype([*HEAD, *fields]), columns)
