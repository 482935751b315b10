"""The list of features that one model uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from forebay.errors import DefinitionError
from forebay.language.arguments import check_labels, checked_list
from forebay.language.names import check_name, check_version
from forebay.language.on_demand import ServedView, stored_views
from forebay.language.selection import Selection
from forebay.language.view import AnyView


class FeatureService(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The features that one model uses, pinned to versions of views: whole views or selections such as `view["score"]`.

    A view may be one that is computed on demand, of views that need not be listed.

    Raises `DefinitionError` where two features have one name.
    """

    name: str
    version: int
    features: Sequence[ServedView | Selection[ServedView]]
    owner: str = ""
    description: str = ""
    tags: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        check_name("FeatureService", self.name)
        check_version(f"FeatureService {self.name!r}", self.version)
        check_labels(f"FeatureService {self.name!r}", self)
        listed = checked_list(f"FeatureService {self.name!r}", "features", self.features, "[view, other['score']]")
        chosen = tuple(f if isinstance(f, Selection) else self._whole(f) for f in listed)
        msgspec.structs.force_setattr(self, "features", chosen)
        owners: dict[str, str] = {}
        for view, name in self.columns():
            if name in owners:
                raise DefinitionError(
                    f"FeatureService {self.name!r}: feature {name!r} comes from {owners[name]!r} and {view.key!r}; "
                    "select the features you need, e.g. view['score'], or rename one"
                )
            owners[name] = view.key
        if not owners:
            raise DefinitionError(f"FeatureService {self.name!r} has no features; name views or view['feature']")

    def _whole(self, view: ServedView) -> Selection[ServedView]:
        if not isinstance(view, ServedView):
            raise DefinitionError(
                f"FeatureService {self.name!r}: {view!r} is not a view or a selection such as view['score']"
            )
        return Selection(view, tuple(view.outputs()))

    @property
    def key(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def asset_name(self) -> str:
        """`name_vN`, as in asset keys."""
        return f"{self.name}_v{self.version}"

    def columns(self) -> Iterator[tuple[ServedView, str]]:
        """(view, feature name), in order."""
        for selection in self.features:
            assert isinstance(selection, Selection)
            for name in selection.names:
                yield selection.view, name

    def views(self) -> dict[str, AnyView]:
        """The views that it reads, each once: those that it lists, and the inputs of those that are on demand."""
        listed = {view.key: view for view, _ in self.columns()}
        return {view.key: view for one in listed.values() for view in stored_views(one)}

    def pins(self, key: str) -> bool:
        """Whether it needs a view, to read it or to compute it."""
        return key in self.views() or any(view.key == key for view, _ in self.columns())
