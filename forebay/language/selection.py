"""What every view has, whatever its kind: a name, a version, an entity and features, of which some can be selected."""

from __future__ import annotations

from typing import ClassVar, Generic, Self, TypeVar

import msgspec

from forebay.errors import DefinitionError, UnknownNameError, suggestion
from forebay.instants import DAY_US, MINUTE_US
from forebay.language.arguments import check_labels
from forebay.language.durations import declared_us
from forebay.language.entity import Entity
from forebay.language.feature import Feature
from forebay.language.names import check_name, check_version

Chosen = TypeVar("Chosen", bound="Selectable", covariant=True)


class Selection(msgspec.Struct, Generic[Chosen], frozen=True):
    """Some features of a view: `view["score"]` or `view["a", "b"]`."""

    view: Chosen
    names: tuple[str, ...]


class Selectable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named version of a view, some of whose features can be selected."""

    name: str
    version: int

    kind: ClassVar[str] = "view"

    @property
    def key(self) -> str:
        """`name@version`, as in keys, paths and requests."""
        return f"{self.name}@{self.version}"

    @property
    def asset_name(self) -> str:
        """`name_vN`, as in asset keys."""
        return f"{self.name}_v{self.version}"

    def outputs(self) -> dict[str, Feature]:
        """Its features by name, in order."""
        raise NotImplementedError

    def __getitem__(self, names: str | tuple[str, ...]) -> Selection[Self]:
        """Some of its features. Raises `UnknownNameError` for a name that it does not have."""
        chosen = (names,) if isinstance(names, str) else tuple(names)
        known = self.outputs()
        for name in chosen:
            if name not in known:
                raise UnknownNameError(f"View {self.key!r} has no feature {name!r}. {suggestion(name, known)}")
        return Selection(self, chosen)


class EntityView(Selectable, frozen=True):
    """A view of one entity: what of it is stored is found by the keys of that."""

    entity: Entity


def check_head(where: str, view: EntityView) -> None:
    """Refuse a name, a version, an entity or labels that no view can have."""
    check_name("View", view.name)
    check_version(where, view.version)
    check_labels(where, view)
    if not isinstance(view.entity, Entity):
        raise DefinitionError(f"{where}: entity={view.entity!r} is not an Entity")


def check_history(where: str, text: str | None) -> None:
    """Refuse a grid of finished values that does not divide a day."""
    step_us = declared_us(f"{where}: history", text)
    if step_us is not None and (DAY_US % step_us or step_us < MINUTE_US):
        raise DefinitionError(
            f"{where}: history={text!r} doesn't divide a day into steps of a minute or more; expected e.g. '1h' or '1d'"
        )
