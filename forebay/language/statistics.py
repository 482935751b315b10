"""Statistical defaults: what an entity without a value gets is what others have.

    default=Median(over="30d", otherwise=0)

is a declaration: of the values that entities had within 30 days, the median. What it *is* is learned from history by a
deliberate act (`forebay learn`, an asset) and kept in the manifest, from which serving and training have the same
value; until then, and where history has no value, it is `otherwise`. May live here: the declarations, and the last step
from values to the statistic. Nothing here reads history.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from forebay.errors import DefinitionError
from forebay.instants import DAY_US
from forebay.language.durations import required_us
from forebay.language.frozen import Frozen
from forebay.language.types import BoolType, DecimalType, Float64Type, Int64Type, StringType

Array = npt.NDArray[Any]
OVER_MAX_US = 3660 * DAY_US


class Statistic(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag_field="statistic"
):
    """A default that is learned: a statistic over the values that entities had within `over`, whole days before now.

    `otherwise` is the default until it is learned, and where there are no values.
    """

    over: str
    otherwise: Any = msgspec.UNSET
    learned: Mapping[str, Any] = {}
    """What was learned, by feature: of what is deployed alone, never declared."""

    takes: ClassVar[tuple[type, ...]] = (Int64Type, Float64Type, DecimalType)
    needs: ClassVar[str] = "numbers"

    def __post_init__(self) -> None:
        over_us = required_us(f"{self.name}: over", self.over)
        if over_us % DAY_US or over_us > OVER_MAX_US:
            raise DefinitionError(f"{self.name}: over={self.over!r}; expected whole days such as '30d', at most 3660d")
        if self.otherwise is msgspec.UNSET:
            raise DefinitionError(
                f"{self.name} names no otherwise; say what holds until it is learned, e.g. otherwise=0 (None: null)"
            )
        msgspec.structs.force_setattr(self, "learned", Frozen(self.learned))

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.__struct_config__.tag)

    @property
    def over_days(self) -> int:
        """Days of `over`."""
        return required_us(self.name, self.over) // DAY_US

    def __str__(self) -> str:
        return f"{self.name} over {self.over}"

    def check(self, where: str, kind: Any) -> None:
        """Raise `DefinitionError` where it cannot be taken of values of a type."""
        if not isinstance(kind, self.takes):
            raise DefinitionError(f"{where}: default {self.name} cannot be taken of {kind}; it needs {self.needs}")

    def of(self, values: Array, kind: Any) -> Any:
        """The statistic of one or more stored values, as a Python value of their type: rounded half-even to it."""
        return kind.python(self.stored(values, kind))

    def stored(self, values: Array, kind: Any) -> Any:
        """The statistic of stored values, in stored form."""
        number = self.number(values)
        return number if isinstance(kind, Float64Type) else round(number)

    def number(self, values: Array) -> float:
        """The statistic of numbers."""
        raise NotImplementedError


class Median(Statistic, frozen=True, tag="Median"):
    """The middle of the values: half of them are smaller, half larger."""

    def number(self, values: Array) -> float:
        """The middle, or the mean of the two that are in the middle."""
        return float(np.median(values))


class Average(Statistic, frozen=True, tag="Average"):
    """The mean of the values."""

    def number(self, values: Array) -> float:
        """Their sum over their count."""
        return float(np.mean(values))


class Percentile(Statistic, frozen=True, tag="Percentile"):
    """The value below which `percent` of a hundred lie: `Percentile(percent=95, over="30d", otherwise=0)`."""

    percent: float

    def __post_init__(self) -> None:
        Statistic.__post_init__(self)
        known = isinstance(self.percent, int | float) and not isinstance(self.percent, bool)
        if not known or not 0 <= self.percent <= 100:
            raise DefinitionError(f"Percentile: percent={self.percent!r}; expected 0 to 100")

    def __str__(self) -> str:
        return f"Percentile {self.percent:g} over {self.over}"

    def number(self, values: Array) -> float:
        """Interpolated between neighbours."""
        return float(np.percentile(values, self.percent))


class MostCommon(Statistic, frozen=True, tag="MostCommon"):
    """The value that is there most often; of equally frequent ones the smallest."""

    takes: ClassVar[tuple[type, ...]] = (StringType, BoolType, Int64Type)
    needs: ClassVar[str] = "texts, truth values or whole numbers"

    def stored(self, values: Array, kind: Any) -> Any:
        """The first of the most frequent, in their order."""
        found, counts = np.unique(values, return_counts=True)
        return found[np.argmax(counts)].item() if found.dtype.kind != "O" else found[np.argmax(counts)]


AnyStatistic = Median | Average | Percentile | MostCommon
