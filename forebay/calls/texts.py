"""Values that are written as text: arguments of a command, parameters of a URL.

May live here: how a value of a type is written. Null is an empty text.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any

from forebay.errors import RequestError
from forebay.language.types import AnyType, BoolType, DecimalType, Float64Type, Int64Type

_READ: dict[type, tuple[str, Callable[[str], Any]]] = {
    Int64Type: ("a whole number", int),
    Float64Type: ("a number", float),
    DecimalType: ("a number", decimal.Decimal),
    BoolType: ("true or false", {"true": True, "false": False}.__getitem__),
}


def value_of(name: str, text: str, kind: AnyType) -> Any:
    """The value that a text is of a type; texts and instants stay as they are. Raises `RequestError`.

    >>> from forebay import Bool, Decimal
    >>> value_of("amount", "12.50", Decimal(2)), value_of("is_new", "true", Bool), value_of("is_new", "", Bool)
    (Decimal('12.50'), True, None)
    """
    if text == "":
        return None
    expected, read = _READ.get(type(kind), ("", str))
    try:
        return read(text)
    except (ValueError, ArithmeticError, KeyError):
        raise RequestError(f"{name}={text[:80]!r} is not a {kind}; expected {expected}") from None
