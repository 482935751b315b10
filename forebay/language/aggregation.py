"""What an aggregation is: a declaration, and the last step of an algebra.

It says which partials of a column a tile must remember (`partials`) and how the merged partials of a window become a
value (`finish`). Fold, merge and roll-up are the partials' own (`forebay.algebra.partials`, `forebay.algebra.ragged`),
the same for every path. The aggregations themselves are exported by `forebay.language.aggregations`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from forebay.algebra.partials import Partial
from forebay.algebra.ragged import Ragged
from forebay.errors import DefinitionError
from forebay.language.arguments import check_labels, checked_list
from forebay.language.names import check_name
from forebay.language.types import AnyType, DecimalType, FeatureType, StringType
from forebay.language.windows import Window

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp] | slice
"""Some rows, by their numbers, or a stretch of them."""
WINDOWS_MAX = 16
"""Windows of one aggregation."""


@dataclass(frozen=True)
class Merged:
    """The merged partials of some windows: one row per window.

    `events` counts them, `newest` is the ts of the newest, `instant` the instant of the answer; `cells` are those of
    ragged partials by name. Rows without a present value are never looked at.
    """

    fields: Mapping[str, Array]
    events: npt.NDArray[np.int64]
    newest: npt.NDArray[np.int64]
    instant: npt.NDArray[np.int64]
    cells: Mapping[str, Ragged] = field(default_factory=dict)
    _there: dict[str | None, tuple[Mask, bool]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def there(self, column: str | None) -> tuple[Mask, bool]:
        """Which windows have a value of a column, and whether all do (there are some, then); asked by each feature."""
        found = self._there.get(column)
        if found is None:
            mask = self.present(column) > 0
            found = self._there[column] = mask, bool(len(mask) and mask.all())
        return found

    def present(self, column: str | None) -> npt.NDArray[np.int64]:
        """How many values of a column there are; of no column: how many events."""
        return self.events if column is None else self.fields[f"present_{column}"]


@dataclass(frozen=True)
class Finished:
    """Values of one feature, the rows that have one, and the rows whose value does not fit its type; whether each has
    one that fits, where that is known.
    """

    values: Array
    present: Mask
    failed: Mask
    whole: bool = False


class Aggregation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="aggregation"):
    """One aggregate over one or more windows, yielding one feature per window: `<name>_<window>`.

    `of` is a column of the source or a derived one; `windows` are durations, `None` for the lifetime; `default` is the
    value where nothing is in the window (`None` says null on purpose); `hop` overrides the grain of the windows' old
    edge.
    """

    name: str
    of: str | None = None
    windows: Sequence[str | None] = ()
    default: Any = msgspec.UNSET
    hop: str | None = None
    description: str = ""

    needs: ClassVar[tuple[str, ...]] = ("present",)
    of_required: ClassVar[bool] = True
    keeps_text: ClassVar[bool] = False

    def __post_init__(self) -> None:
        where = f"{type(self).__name__} {self.name!r}"
        check_name(type(self).__name__, self.name)
        check_labels(where, self)
        windows = checked_list(where, "windows", self.windows, "['1h', '7d']")
        msgspec.structs.force_setattr(self, "windows", windows)
        if not 1 <= len(self.windows) <= WINDOWS_MAX:
            raise DefinitionError(
                f"{where} has {len(self.windows)} windows; expected 1 to {WINDOWS_MAX}, "
                "e.g. windows=['1h', '7d'], or windows=[None] for the lifetime"
            )
        if len(set(self.windows)) != len(self.windows):
            raise DefinitionError(f"{where} names a window twice; each yields one feature")
        for window in self.windows:
            self.window(window)
        if self.default is msgspec.UNSET:
            raise DefinitionError(
                f"{where} names no default; say what an entity without events gets, e.g. default=0 (or None for null)"
            )
        if self.of is None and self.of_required:
            raise DefinitionError(f"{where} does not say of what; write of='<column>'")

    def feature_name(self, window: str | None) -> str:
        """The name of the feature over one window."""
        return f"{self.name}_{window or 'lifetime'}"

    def window(self, window: str | None) -> Window:
        """One of its windows, with its hop."""
        return Window.of(f"{type(self).__name__} {self.name!r}", window, self.hop)

    def accepts(self, column: AnyType) -> bool:
        """Whether it can be taken of a column of this type: text that it keeps in tiles must be bounded."""
        return not self.keeps_text or not isinstance(column, StringType) or column.max_bytes is not None

    def parameters(self, column: AnyType | None) -> dict[str, Any]:
        """What of its own arguments decides its values, each a number, a text or a list in the form of the column."""
        return {}

    def checked(self, where: str, column: AnyType | None) -> Aggregation:
        """Itself, with its arguments in the form of the column. Raises `DefinitionError`."""
        return self

    def output(self, column: AnyType | None) -> FeatureType:
        """The type of its features."""
        raise NotImplementedError

    def kinds(self, column: AnyType | None) -> tuple[str, ...]:
        """The kinds of partials that it needs of its column."""
        return self.needs

    def partials(self, column: AnyType | None) -> tuple[Partial, ...]:
        """The partials that a tile must remember for it."""
        return () if self.of is None else tuple(Partial(kind, self.of) for kind in self.kinds(column))

    def finish(self, merged: Merged, column: AnyType | None) -> Finished:
        """The values of merged windows."""
        (present, whole), output = merged.there(self.of), self.output(column)
        failed = np.zeros(len(present), np.bool_)
        if whole:
            values = np.empty(len(present), output.storage)
            values[:], wrong = self.compute(merged, slice(None), column)
            if wrong is not False:
                failed[:] = wrong
            return Finished(values, present, failed, wrong is False)
        values = np.zeros(len(present), output.storage)
        rows = np.flatnonzero(present)
        if len(rows):
            values[rows], failed[rows] = self.compute(merged, rows, column)
        return Finished(values, present, failed)

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """Values of the rows that have one, and which of them do not fit; what is given may not be written to."""
        raise NotImplementedError


class Numeric(Aggregation, frozen=True):
    """An aggregation of numbers."""

    def accepts(self, column: AnyType) -> bool:
        """Numbers only."""
        return column.summable


def scale_of(column: AnyType | None) -> int:
    """How many digits after the point a stored unit stands for."""
    return column.scale if isinstance(column, DecimalType) else 0
