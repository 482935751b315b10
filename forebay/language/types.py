"""The types of columns and features.

A type knows how its values look in Arrow (stores, training sets), in NumPy (the core) and in Python (answers), and
nothing else. Numbers are stored as they are computed with: a `Decimal(scale)` is an int64 of its smallest unit, a
`Timestamp` an int64 of UTC microseconds. Null is never a value of a NumPy array here: it is a mask beside it.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

import msgspec

from forebay.errors import DefinitionError, RequestError
from forebay.instants import instant_us, moment

DECIMAL_SCALE_MAX = 12
"""10^12 units leave six digits before the point within DECIMAL_UNITS_MAX."""
DECIMAL_UNITS_MAX = 2**53
"""JSON numbers are IEEE doubles: beyond this a producer cannot have meant a unit exactly."""
STRING_BYTES_MAX = 256
"""A bounded string lies inline in every tile that remembers it."""
LIST_LENGTH_MAX = 1024
"""A list is part of every answer; what is longer is a table."""
VECTOR_LENGTH_MAX = 4096
"""Embeddings of today's models have up to 3,072 numbers."""
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Type(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type"):
    """What all types share: names of their storage and the check of one Python value."""

    numpy: ClassVar[str]
    summable: ClassVar[bool] = False
    ordered: ClassVar[bool] = False

    def __str__(self) -> str:
        return str(self.__struct_config__.tag)

    @property
    def storage(self) -> str:
        """The NumPy dtype that the core computes with."""
        return self.numpy

    def units(self, value: Any) -> Any:
        """The stored form of a Python value (`None` stays `None`); `RequestError` when it is not of this type."""
        raise RequestError(f"{value!r} is not a {self}")

    def python(self, stored: Any) -> Any:
        """The Python value of a stored one."""
        return stored


class StringType(Type, frozen=True, tag="String"):
    """Text. `String(max_bytes=32)` bounds its UTF-8 length, which First and Last of a string need."""

    numpy: ClassVar[str] = "O"
    max_bytes: int | None = None

    def __call__(self, *, max_bytes: int) -> StringType:
        """This type with a bound on the UTF-8 length of its values."""
        return StringType(max_bytes=max_bytes)

    def __post_init__(self) -> None:
        if self.max_bytes is not None and not _is_whole(self.max_bytes, 1, STRING_BYTES_MAX):
            raise DefinitionError(
                f"String(max_bytes={self.max_bytes!r}) is out of bounds; expected 1 to {STRING_BYTES_MAX}"
            )

    def __str__(self) -> str:
        return "String" if self.max_bytes is None else f"String(max_bytes={self.max_bytes})"

    @property
    def storage(self) -> str:
        """Bounded strings lie inline as UTF-8 bytes."""
        return f"S{self.max_bytes}" if self.max_bytes else "O"

    def units(self, value: Any) -> str | None:
        """The text itself. A bounded one lies inline, padded with NUL: it must fit and hold none."""
        if value is not None and not isinstance(value, str):
            raise RequestError(f"{value!r} is not a {self}; expected text")
        if value and not value.isascii() and _LONE_SURROGATE.search(value):
            raise RequestError(f"{value!r} is not a {self}; it has half a character, which UTF-8 cannot hold")
        if value and self.max_bytes is not None and ("\0" in value or _utf8_length(value) > self.max_bytes):
            raise RequestError(f"{value!r} is not a {self}; expected at most {self.max_bytes} UTF-8 bytes and no NUL")
        return value

    def python(self, stored: Any) -> Any:
        """Text of stored bytes."""
        return stored.decode() if isinstance(stored, bytes) else stored


class BoolType(Type, frozen=True, tag="Bool"):
    """True or false."""

    numpy: ClassVar[str] = "?"

    def units(self, value: Any) -> bool | None:
        """The truth value itself."""
        if value is not None and not isinstance(value, bool):
            raise RequestError(f"{value!r} is not a Bool; expected true or false")
        return value

    def python(self, stored: Any) -> Any:
        """A Python bool."""
        return None if stored is None else bool(stored)


class Int64Type(Type, frozen=True, tag="Int64"):
    """A whole number of 64 bits."""

    numpy: ClassVar[str] = "<i8"
    summable: ClassVar[bool] = True
    ordered: ClassVar[bool] = True

    def units(self, value: Any) -> int | None:
        """The number itself."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not INT64_MIN <= value <= INT64_MAX:
            raise RequestError(f"{value!r} is not an Int64; expected a whole number of 64 bits")
        return value

    def python(self, stored: Any) -> Any:
        """A Python int."""
        return None if stored is None else int(stored)


class Float64Type(Type, frozen=True, tag="Float64"):
    """A finite IEEE 754 double. NaN is null; an infinity is refused."""

    numpy: ClassVar[str] = "<f8"
    summable: ClassVar[bool] = True
    ordered: ClassVar[bool] = True

    def units(self, value: Any) -> float | None:
        """The number as a double; NaN is null."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, bool) or not isinstance(value, int | float | decimal.Decimal) or math.isinf(value):
            raise RequestError(f"{value!r} is not a Float64; expected a finite number")
        return float(value)

    def python(self, stored: Any) -> Any:
        """A Python float."""
        return None if stored is None else float(stored)


class DecimalType(Type, frozen=True, tag="Decimal"):
    """An exact decimal with `scale` digits after the point, for money and other counted units."""

    numpy: ClassVar[str] = "<i8"
    summable: ClassVar[bool] = True
    ordered: ClassVar[bool] = True
    scale: int

    def __post_init__(self) -> None:
        if not _is_whole(self.scale, 0, DECIMAL_SCALE_MAX):
            raise DefinitionError(
                f"Decimal({self.scale!r}) is out of bounds; expected a scale of 0 to {DECIMAL_SCALE_MAX}"
            )

    def __str__(self) -> str:
        return f"Decimal({self.scale})"

    def units(self, value: Any) -> int | None:
        """The number in units of 10^-scale, rounded half-even once."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        try:
            number = decimal.Decimal(repr(value) if isinstance(value, float) else value)
            units = int(number.scaleb(self.scale).to_integral_value(decimal.ROUND_HALF_EVEN))
        except (decimal.InvalidOperation, TypeError, ValueError, OverflowError):
            raise RequestError(f"{value!r} is not a {self}; expected a finite number") from None
        if isinstance(value, bool) or abs(units) > DECIMAL_UNITS_MAX:
            raise RequestError(f"{value!r} is not a {self}; expected at most 2^53 units of 10^-{self.scale}")
        return units

    def python(self, stored: Any) -> Any:
        """A `decimal.Decimal` with exactly `scale` digits after the point."""
        return None if stored is None else decimal.Decimal(int(stored)).scaleb(-self.scale)


class TimestampType(Type, frozen=True, tag="Timestamp"):
    """An instant, to the microsecond, in UTC."""

    numpy: ClassVar[str] = "<i8"
    ordered: ClassVar[bool] = True

    def units(self, value: Any) -> int | None:
        """UTC microseconds."""
        return None if value is None else instant_us(value)

    def python(self, stored: Any) -> datetime | None:
        """An aware UTC datetime."""
        return None if stored is None else moment(int(stored))


AnyType = StringType | BoolType | Int64Type | Float64Type | DecimalType | TimestampType


class ListType(Type, frozen=True, tag="List"):
    """`List(Int64)`: up to 1,024 values of one type, none of them null. Stored as a tuple of stored values."""

    numpy: ClassVar[str] = "O"
    of: AnyType

    def __post_init__(self) -> None:
        if not isinstance(self.of, AnyType):
            raise DefinitionError(f"List({self.of!r}) is a list of no column's type; expected e.g. List(Int64)")

    def __str__(self) -> str:
        return f"List({self.of})"

    def units(self, value: Any) -> tuple[Any, ...] | None:
        """A tuple of the stored forms of its values."""
        if value is None:
            return None
        if not _is_list(value) or len(value) > LIST_LENGTH_MAX:
            raise RequestError(f"{value!r} is not a {self}; expected a list of at most {LIST_LENGTH_MAX} values")
        stored = tuple(self.of.units(one) for one in value)
        if None in stored:
            raise RequestError(f"{value!r} is not a {self}; expected no null in it")
        return stored

    def python(self, stored: Any) -> Any:
        """A Python list."""
        return None if stored is None else [self.of.python(one) for one in stored]


class VectorType(Type, frozen=True, tag="Vector"):
    """`Vector(384)`: exactly so many finite doubles, such as an embedding. Stored as a tuple of floats."""

    numpy: ClassVar[str] = "O"
    length: int

    def __post_init__(self) -> None:
        if not _is_whole(self.length, 1, VECTOR_LENGTH_MAX):
            raise DefinitionError(
                f"Vector({self.length!r}) is out of bounds; expected a length of 1 to {VECTOR_LENGTH_MAX}"
            )

    def __str__(self) -> str:
        return f"Vector({self.length})"

    def units(self, value: Any) -> tuple[float, ...] | None:
        """A tuple of doubles."""
        if value is None:
            return None
        if not _is_list(value) or len(value) != self.length:
            raise RequestError(f"{value!r} is not a {self}; expected a list of {self.length} numbers")
        stored = tuple(Float64.units(one) for one in value)
        if None in stored:
            raise RequestError(f"{value!r} is not a {self}; expected no null in it")
        return tuple(one for one in stored if one is not None)

    def python(self, stored: Any) -> Any:
        """A Python list of floats."""
        return None if stored is None else list(stored)


FeatureType = AnyType | ListType | VectorType
"""What a feature can be: the types of columns, and lists and vectors, which only features are."""

String = StringType()
Bool = BoolType()
Int64 = Int64Type()
Float64 = Float64Type()
Timestamp = TimestampType()
Decimal = DecimalType
List = ListType
Vector = VectorType


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _utf8_length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
