"""What features are about."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from forebay.errors import DefinitionError
from forebay.language.arguments import check_cases, check_labels, checked_mapping
from forebay.language.names import check_name
from forebay.language.types import AnyType, Int64Type, StringType

KEYS_MAX = 8
"""Key columns of one entity."""
_TILE_COLUMNS = frozenset(
    {"entity_key", "hop_us", "tile_start", "tile_events", "tile_newest", "commit_number", "next_offset", "instant"}
)


class Entity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What features are about, with the columns that identify it: `Entity("user", keys={"user_id": String})`.

    Keys are String or Int64. Raises `DefinitionError` when the name or a key cannot be one.
    """

    name: str
    keys: Mapping[str, AnyType]
    description: str = ""

    def __post_init__(self) -> None:
        check_name("Entity", self.name)
        where = f"Entity {self.name!r}"
        keys = checked_mapping(where, "keys", self.keys, "{'user_id': String}")
        msgspec.structs.force_setattr(self, "keys", keys)
        check_labels(where, self)
        check_cases(where, "key", list(keys))
        if not 1 <= len(self.keys) <= KEYS_MAX:
            raise DefinitionError(
                f"Entity {self.name!r} has {len(self.keys)} keys; expected 1 to {KEYS_MAX}, e.g. {{'user_id': String}}"
            )
        for column, kind in self.keys.items():
            check_name(f"Entity {self.name!r}: key", column)
            if column in _TILE_COLUMNS:
                raise DefinitionError(
                    f"Entity {self.name!r}: key {column!r} is a column of every tiles table; choose another name"
                )
            if not isinstance(kind, StringType | Int64Type):
                raise DefinitionError(f"Entity {self.name!r}: key {column!r} is {kind!r}; expected String or Int64")
