"""A feature: a named, typed value with a mandatory default; and what must hold of the features of one view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from forebay.errors import DefinitionError
from forebay.language.arguments import check_cases, check_labels, checked_list
from forebay.language.defaults import checked_default, default_of
from forebay.language.entity import Entity
from forebay.language.names import check_name
from forebay.language.types import FeatureType

FEATURES_MAX = 500
"""Features of one view."""


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named, typed value with a default, as a batch view yields it. `default=None` says null on purpose."""

    name: str
    type: FeatureType
    default: Any = msgspec.UNSET
    description: str = ""

    def __post_init__(self) -> None:
        where = f"Feature {self.name!r}"
        check_name("Feature", self.name)
        check_labels(where, self)
        _check_type(where, self.type)
        if self.default is msgspec.UNSET:
            raise DefinitionError(
                f"{where} names no default; say what an unknown entity gets, e.g. default=0 (or None for null)"
            )
        msgspec.structs.force_setattr(self, "default", checked_default(where, self.default, self.type))

    def resolved(self) -> Feature:
        """With the value that its default is, where that is a statistic."""
        default = default_of(self.default, self.name)
        return self if default is self.default else msgspec.structs.replace(self, default=default)


def check_features(where: str, entity: Entity, outputs: Mapping[str, Feature]) -> None:
    """Refuse too many features, or none, and names that a table of the view cannot have."""
    check_count(where, len(outputs))
    for name in outputs:
        check_name(f"{where}: feature", name)
        if name in entity.keys:
            raise DefinitionError(
                f"{where}: feature {name!r} is also a key of entity {entity.name!r}; choose another name"
            )


def checked_features(where: str, features: Any, example: str) -> tuple[Feature, ...]:
    """A list of features that was declared, as a tuple. Raises `DefinitionError` for anything else in it."""
    listed = checked_list(where, "features", features, f"[{example}]")
    for feature in listed:
        if not isinstance(feature, Feature):
            raise DefinitionError(f"{where}: {feature!r} is not a Feature; expected e.g. {example}")
    return listed


def check_count(where: str, count: int) -> None:
    """Refuse too many features, or none."""
    if not 1 <= count <= FEATURES_MAX:
        raise DefinitionError(f"{where} has {count} features; expected 1 to {FEATURES_MAX}")


def check_unique(where: str, names: Sequence[str]) -> None:
    """Refuse two features of one name, or of names that differ in case only."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise DefinitionError(f"{where} has two features named {twice[0]!r}; give one another name")
    check_cases(where, "feature", names)


def _check_type(where: str, kind: Any) -> None:
    if not isinstance(kind, FeatureType):
        raise DefinitionError(f"{where} is of type {kind!r}; expected a type such as String, Int64 or Decimal(2)")
