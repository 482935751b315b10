"""On-demand views: features that a function computes at the call, of other features and of what the request brings.

Nothing of them is stored: the same function runs at an online read and for each row of a training set. What it gives
for a row depends on that row alone, so many rows may be computed at once (`forebay.calls.on_demand`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, ClassVar

import msgspec

from forebay.errors import DefinitionError, suggestion
from forebay.language.arguments import check_labels, checked_list, checked_mapping
from forebay.language.code import code_of
from forebay.language.feature import Feature, check_count, check_unique, checked_features
from forebay.language.frozen import Frozen
from forebay.language.names import check_name, check_version
from forebay.language.selection import Selectable, Selection
from forebay.language.statistics import Statistic
from forebay.language.types import AnyType
from forebay.language.view import AnyView

INSTANT = "event_timestamp"
"""The parameter of a function that gets the instant of the answer, as the column of a training set is called."""
REQUEST_MAX = 100
"""Columns of a request that one view takes."""
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class OnDemandView(Selectable, frozen=True):
    """Features that a function computes at the call. Made by the decorator `on_demand`.

    `inputs` are the features that the function takes, of views by version; `request` the columns that a call brings
    along, by type. `code` is the fingerprint of the function, which is `None` where the view was read from a manifest.
    """

    kind: ClassVar[str] = "on-demand view"

    inputs: Sequence[Selection[AnyView]]
    request: Mapping[str, AnyType]
    features: Sequence[Feature]
    code: str = ""
    owner: str = ""
    description: str = ""
    tags: Mapping[str, str] = {}
    compute: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        where = f"View {self.name!r}"
        check_name("View", self.name)
        check_version(where, self.version)
        check_labels(where, self)
        msgspec.structs.force_setattr(self, "inputs", tuple(self.inputs))
        request = checked_mapping(where, "request", self.request, "{'amount': Float64}")
        msgspec.structs.force_setattr(self, "request", request)
        keys = {name for one in self.inputs for name in one.view.entity.keys}
        _check_request(where, request, keys)
        features = checked_features(where, self.features, "Feature('ratio', Float64, default=1.0)")
        msgspec.structs.force_setattr(self, "features", features)
        _check_features(where, features, request, keys)

    def outputs(self) -> dict[str, Feature]:
        """Its features by name, in order."""
        return {f.name: f for f in self.features}

    def arguments(self) -> dict[str, tuple[AnyView, str]]:
        """The features that its function takes, by parameter: each a view and a name."""
        return {name: (selection.view, name) for selection in self.inputs for name in selection.names}

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        """What its function returns, called as it is written: for tests of it, and for others that build on it."""
        if self.compute is None:
            raise DefinitionError(f"View {self.key!r} has no function here: it was read from a manifest")
        return self.compute(*arrays, **named)

    @property
    def takes_instant(self) -> bool:
        """Whether its function asks for the instant of the answer."""
        return self.compute is not None and _takes_instant(self.compute)


ServedView = AnyView | OnDemandView
"""What a service can list: views, and what is computed of them at the call."""


def stored_views(view: ServedView) -> list[AnyView]:
    """The views that have to be read for a view: itself, or its inputs."""
    return [one.view for one in view.inputs] if isinstance(view, OnDemandView) else [view]


def on_demand(
    *,
    version: int,
    features: Sequence[Feature],
    inputs: Sequence[AnyView | Selection[AnyView]] = (),
    request: Mapping[str, AnyType] | None = None,
    owner: str = "",
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], OnDemandView]:
    """Declare an on-demand view by its function: `function(<input feature>, …, <request column>, …)`.

    Its parameters name features of `inputs` (views, or selections such as `view["spend_24h"]`), columns of `request`,
    and, if it likes, `event_timestamp`: the instant of the answer. Each is a NumPy array with a value per row, as
    `to_numpy()` gives them: Int64 int64, Float64 and `Decimal(n)` float64, Bool bool, Timestamp datetime64[us] (UTC),
    String objects, `Vector(n)` float64 of shape (rows, n), `List(T)` objects. None of them has a null: a row that lacks
    an input is not computed. It returns an array of a value per row, or, of several features, a dict of them by name.

    A row's value may depend on that row alone. A result that is null, not finite or not of the feature's type, and a
    row at which the function raises, give the feature's default with `DEFAULT_ERROR`, online and in training alike.
    """

    def declare(compute: Callable[..., Any]) -> OnDemandView:
        if not inspect.isfunction(compute):
            raise DefinitionError(f"on_demand(…) was given {compute!r}; expected a function: def <name>(…)")
        where = f"View {compute.__name__!r}"
        given = checked_list(where, "inputs", inputs, "[view, other['score']]")
        columns = checked_mapping(where, "request", {} if request is None else request, "{'amount': Float64}")
        return OnDemandView(
            name=compute.__name__,
            version=version,
            inputs=_taken(where, compute, [_selection(where, one) for one in given], columns),
            request=columns,
            features=features,
            code=code_of(compute),
            owner=owner,
            description=description or inspect.getdoc(compute) or "",
            tags=tags or {},
            compute=compute,
        )

    return declare


def _selection(where: str, given: Any) -> Selection[AnyView]:
    view = given.view if isinstance(given, Selection) else given
    if isinstance(view, OnDemandView):
        raise DefinitionError(
            f"{where}: input {view.key!r} is an on-demand view, and nothing is computed of those; "
            "call its function in this one, or take its inputs"
        )
    if not isinstance(view, AnyView):
        raise DefinitionError(f"{where}: input {given!r} is not a view or a selection such as view['score']")
    return given if isinstance(given, Selection) else Selection(view, tuple(view.outputs()))


def _taken(
    where: str, compute: Callable[..., Any], given: Sequence[Selection[AnyView]], request: Frozen[str, AnyType]
) -> list[Selection[AnyView]]:
    """What of the inputs the function takes. Raises `DefinitionError` unless each of its parameters is one thing."""
    parameters = inspect.signature(compute).parameters
    for name, parameter in parameters.items():
        if parameter.kind not in _NAMED or parameter.default is not parameter.empty:
            raise DefinitionError(
                f"{where}: its function takes {parameter}; expected plain names of inputs, of request columns, "
                f"or {INSTANT!r}"
            )
        holders = [one.view.key for one in given if name in one.names] + ["the request"] * (name in request)
        if not holders and name != INSTANT:
            known = [*(known for one in given for known in one.names), *request, INSTANT]
            raise DefinitionError(
                f"{where}: its function takes {name!r}, which is no feature of its inputs and no column of its "
                f"request. {suggestion(name, known)}"
            )
        if len(holders) > 1:
            raise DefinitionError(
                f"{where}: {name!r} is in {' and in '.join(holders)}; select what is meant, e.g. view[{name!r}], "
                "or rename the request's"
            )
    for name in request:
        if name not in parameters:
            raise DefinitionError(f"{where}: its request has {name!r}, which its function does not take; leave it out")
    taken = [Selection(one.view, tuple(name for name in one.names if name in parameters)) for one in given]
    for one in taken:
        if not one.names:
            raise DefinitionError(f"{where}: its function takes nothing of input {one.view.key!r}; leave it out")
    return taken


@functools.cache
def _takes_instant(compute: Callable[..., Any]) -> bool:
    return INSTANT in inspect.signature(compute).parameters


def _check_request(where: str, request: Mapping[str, Any], keys: AbstractSet[str]) -> None:
    if len(request) > REQUEST_MAX:
        raise DefinitionError(f"{where}: its request has {len(request)} columns; expected at most {REQUEST_MAX}")
    for name, kind in request.items():
        check_name(f"{where}: request column", name)
        if name in keys:
            raise DefinitionError(f"{where}: request column {name!r} is a key of its inputs; choose another name")
        if not isinstance(kind, AnyType):
            raise DefinitionError(
                f"{where}: request column {name!r} is of type {kind!r}; expected a type such as Float64 or String"
            )


def _check_features(
    where: str, features: Sequence[Feature], request: Mapping[str, Any], keys: AbstractSet[str]
) -> None:
    for feature in features:
        if isinstance(feature.default, Statistic):
            raise DefinitionError(
                f"{where}: feature {feature.name!r} has the default {feature.default}, a statistic of stored values, "
                "and nothing of an on-demand view is stored; name a value"
            )
        if feature.name in request:
            raise DefinitionError(
                f"{where}: feature {feature.name!r} is also a column of its request; choose another name"
            )
        if feature.name in keys:
            raise DefinitionError(f"{where}: feature {feature.name!r} is also a key of its inputs; choose another name")
    check_count(where, len(features))
    check_unique(where, [feature.name for feature in features])
