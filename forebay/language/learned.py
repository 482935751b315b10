"""What was learned of a view's statistical defaults: part of what is deployed, never of the code.

    code       default=Median(over="30d", otherwise=0)
    manifest   the same, and "learned": {"user_sales@1": {"spent_24h": "12.50"}}
    a client   a view whose default of spent_24h is 12.50

May live here: putting learned values into views, and taking them out. Invariant: whatever is learned, the declaration
and so the fingerprint stay what they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from forebay.errors import DefinitionError, suggestion
from forebay.language.defaults import default_of
from forebay.language.definitions import Definitions
from forebay.language.frozen import Frozen
from forebay.language.statistics import Statistic
from forebay.language.view import AnyView, WindowedView


def statistics_of(view: AnyView) -> dict[str, Statistic]:
    """The statistical defaults that a view declares, by feature."""
    if isinstance(view, WindowedView):
        declared = {f.feature_name(window): f.default for f in view.features for window in f.windows}
    else:
        declared = {f.name: f.default for f in view.features}
    return {name: default for name, default in declared.items() if isinstance(default, Statistic)}


def learned_of(view: AnyView) -> dict[str, Any]:
    """What was learned of a view, by feature."""
    return {
        name: default_of(statistic, name)
        for name, statistic in statistics_of(view).items()
        if name in statistic.learned
    }


def with_learned(view: AnyView, values: Mapping[str, Any]) -> AnyView:
    """The view with these learned values, and no others. Raises `DefinitionError` where a feature has no statistic."""
    known = statistics_of(view)
    for name in values:
        if name not in known:
            raise DefinitionError(f"View {view.key!r} learns no default of {name!r}. {suggestion(name, known)}")
    if learned_of(view) == dict(values):
        return view
    features = [_with_learned(feature, values) for feature in view.features]
    changed: AnyView = msgspec.structs.replace(view, features=features)
    return changed


def as_deployed(view: AnyView, deployed: Definitions | None) -> AnyView:
    """A view of the code with what was learned of it, as it is deployed."""
    before = deployed.views.get(view.key) if deployed else None
    known = statistics_of(view)
    if before is None or not known:
        return view
    return with_learned(view, {name: value for name, value in learned_of(before).items() if name in known})


def carried(code: Definitions, deployed: Definitions | None) -> dict[str, AnyView]:
    """The views of the code, each with what was learned of it still."""
    return {key: as_deployed(view, deployed) for key, view in code.views.items()}


def _with_learned(feature: Any, values: Mapping[str, Any]) -> Any:
    """An aggregation or a feature of a batch view."""
    if not isinstance(feature.default, Statistic):
        return feature
    names = [feature.feature_name(w) for w in feature.windows] if hasattr(feature, "windows") else [feature.name]
    mine = Frozen({name: values[name] for name in names if name in values})
    return msgspec.structs.replace(feature, default=msgspec.structs.replace(feature.default, learned=mine))
