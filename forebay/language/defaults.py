"""Defaults in the form of their type, as a declaration takes them.

May live here: what a default may be (a value of the feature's type, or a statistic), and the value that it is.
"""

from __future__ import annotations

import decimal
from typing import Any

import msgspec

from forebay.errors import DefinitionError, RequestError
from forebay.language.frozen import Frozen
from forebay.language.statistics import Statistic
from forebay.language.types import FeatureType, ListType


def checked_default(where: str, default: Any, kind: FeatureType) -> Any:
    """The default in the form of its type, so that 0 of a Decimal(2) is Decimal("0.00"); a list is a tuple.

    Of a statistic: its `otherwise`, and what was learned. Raises `DefinitionError` where it is none, or where rounding
    to the type's scale would make it another number.
    """
    if isinstance(default, Statistic):
        default.check(where, kind)
        learned = Frozen({name: checked_default(where, value, kind) for name, value in default.learned.items()})
        otherwise = checked_default(f"{where}: otherwise of {default.name}", default.otherwise, kind)
        return msgspec.structs.replace(default, otherwise=otherwise, learned=learned)
    try:
        held = kind.python(kind.units(default))
    except RequestError as error:
        raise DefinitionError(f"{where}: default {error}") from None
    if isinstance(held, decimal.Decimal) and held != decimal.Decimal(str(default)):
        raise DefinitionError(
            f"{where}: default {default!r} is not a {kind}, which would make {held} of it; "
            "write what an entity without a value is to get"
        )
    if isinstance(kind, ListType) and held is not None:
        return tuple(checked_default(where, one, kind.of) for one in default)
    return tuple(held) if isinstance(held, list) else held


def default_of(default: Any, feature: str) -> Any:
    """The value that a declared default is for a feature: of a statistic what was learned, else its `otherwise`."""
    return default.learned.get(feature, default.otherwise) if isinstance(default, Statistic) else default
