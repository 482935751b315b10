"""A derived column: computed from the columns of an event by a SQL expression."""

from __future__ import annotations

import msgspec

from forebay.errors import DefinitionError
from forebay.language.arguments import check_text
from forebay.language.types import AnyType


class Derived(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A column computed from the source's by a SQL expression: `Derived("amount * 0.9", Decimal(2))`."""

    sql: str
    type: AnyType

    def __post_init__(self) -> None:
        check_text("Derived", "sql", self.sql)
        if not isinstance(self.type, AnyType):
            raise DefinitionError(
                f"Derived({self.sql!r}) is of type {self.type!r}; expected a type such as String, Int64 or Decimal(2)"
            )
