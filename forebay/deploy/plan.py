"""The plan: what applying the definitions in the code would change in what is deployed, and what of it is refused.

    added      is in the code alone; a view comes with the footprint of its backfill
    removed    is deployed alone
    changed    differs in what decides no value: owner, description, freshness, a new column …
    refused    would make stored values mean something else, or take away what a service needs

Stored tiles, rows and training sets belong to a version. So a changed computation needs a new version beside the old
one, and a version that was deployed once never comes back as something else. Pure: the clock and the stores come in as
arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forebay.deploy.difference import FEATURES, Difference, compare, flatten
from forebay.deploy.footprint import Archives, Footprint, Reusable, footprint
from forebay.deploy.schema import refuse_source
from forebay.errors import DefinitionError, PlanRefusedError
from forebay.language.definitions import AnyDefinition, Definitions
from forebay.language.entity import Entity
from forebay.language.fingerprint import fingerprint, signature
from forebay.language.manifest import describe
from forebay.language.on_demand import OnDemandView
from forebay.language.service import FeatureService
from forebay.language.source import AnySource, EventSource
from forebay.language.view import AnyView, BatchView, WindowedView

GROUPS = {
    "entity": "entities",
    "source": "sources",
    "view": "views",
    OnDemandView.kind: "on_demand",
    "service": "services",
}
VERSIONED = ("view", OnDemandView.kind, "service")
PLACES = ("stream.path", "stream.url", "stream.brokers")
"""Where a stream is: what names none of its partitions."""
MOVED = (
    "its partitions are read on where they were, by their names: what was read has to be in the new place too, at the "
    "same offsets. Otherwise give the files, the key or the topic another name"
)
Check = Callable[[WindowedView], None]
"""Raises `DefinitionError` where a SQL expression of a view cannot run."""


@dataclass(frozen=True)
class Change:
    """One definition that a plan touches."""

    kind: str
    key: str
    differences: tuple[Difference, ...] = ()
    footprint: Footprint | None = None
    reason: str = ""
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: only what there is to say."""
        content: dict[str, Any] = {"kind": self.kind, "key": self.key}
        if self.differences:
            content["differences"] = [difference.to_dict() for difference in self.differences]
        if self.footprint is not None:
            content["backfill"] = self.footprint.to_dict()
        if self.reason:
            content |= {"reason": self.reason, "advice": self.advice}
        return content

    def __str__(self) -> str:
        lines = [f"{self.kind} {self.key}{f': {self.reason}' if self.reason else ''}"]
        lines += [f"    {difference}" for difference in self.differences]
        return "\n".join([*lines, f"    {self.advice}"] if self.advice else lines)


@dataclass(frozen=True)
class Plan:
    """What applying would do, by kind and key."""

    added: tuple[Change, ...] = ()
    removed: tuple[Change, ...] = ()
    changed: tuple[Change, ...] = ()
    refused: tuple[Change, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the code is what is deployed."""
        return not (self.added or self.removed or self.changed or self.refused)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            name: [change.to_dict() for change in getattr(self, name)]
            for name in ("added", "removed", "changed", "refused")
        }

    def check(self) -> None:
        """Raise `PlanRefusedError` with every refusal, unless there is none."""
        if self.refused:
            count = len(self.refused)
            listed = "\n\n".join(str(change) for change in self.refused)
            raise PlanRefusedError(f"{count} definition{'s' if count > 1 else ''} cannot be applied.\n\n{listed}")


def make_plan(
    code: Definitions,
    deployed: Definitions | None,
    *,
    now_us: int | None = None,
    archives: Archives | None = None,
    reusable: Reusable | None = None,
    check: Check | None = None,
) -> Plan:
    """The plan from what is deployed (`None`: nothing yet) to the code.

    With a clock, added views come with the footprint of their backfill; `archives` adds rows, bytes and an estimate to
    it, and lets a `history_start` that is behind archived events be refused; `reusable` adds the tiles that are there.
    `check` is called with each windowed view that is new or not as it is deployed.
    """
    before = deployed or Definitions()
    changes: dict[str, list[Change]] = {"added": [], "removed": [], "changed": [], "refused": [], "kept": []}
    for kind, group in GROUPS.items():
        was: Mapping[str, AnyDefinition] = getattr(before, group)
        now: Mapping[str, AnyDefinition] = getattr(code, group)
        for key in sorted({*was, *now}):
            if key not in now:
                outcome, change = _remove(kind, key, before, code)
            elif key not in was:
                touched = _footprint(now[key], now_us, archives, reusable)
                outcome, change = _add(kind, key, now[key], before, touched)
            else:
                outcome, change = _keep(kind, key, was[key], now[key], before, code)
            raised = None if outcome == "refused" else _refuse_by_archive(was.get(key), now.get(key), archives)
            if raised is not None:
                outcome, change = "refused", raised
            changes[outcome].append(change)
    refused = {(change.kind, change.key) for change in changes["refused"]}
    expressions = [change for change in _check_expressions(code, before, check) if ("view", change.key) not in refused]
    broken = {change.key for change in expressions}
    added = [change for change in changes["added"] if change.kind != "view" or change.key not in broken]
    return Plan(
        tuple(added),
        tuple(changes["removed"]),
        tuple(changes["changed"]),
        (*changes["refused"], *expressions),
    )


def retired_after(code: Definitions, deployed: Definitions | None) -> dict[str, str]:
    """Fingerprints of views, on-demand views and services that were deployed at some time and are not in the code."""
    before = deployed or Definitions()
    gone = {
        f"{kind}:{key}": fingerprint(value)
        for kind in VERSIONED
        for key, value in getattr(before, GROUPS[kind]).items()
    }
    present = {f"{kind}:{key}" for kind in VERSIONED for key in getattr(code, GROUPS[kind])}
    return {name: print_ for name, print_ in {**before.retired, **gone}.items() if name not in present}


def active_after(code: Definitions, deployed: Definitions | None) -> dict[str, int]:
    """The version that each service's bare name means: as it is deployed, of a new name the lowest in the code."""
    before = deployed.active if deployed else {}
    names = sorted({service.name for service in code.services.values()})
    lowest = {name: min(one.version for one in code.services.values() if one.name == name) for name in names}
    return {name: before.get(name, lowest[name]) for name in names}


def _footprint(
    value: AnyDefinition, now_us: int | None, archives: Archives | None, reusable: Reusable | None
) -> Footprint | None:
    if now_us is None or not isinstance(value, WindowedView | BatchView):
        return None
    return footprint(value, now_us, archives, reusable)


def _add(
    kind: str, key: str, value: AnyDefinition, before: Definitions, touched: Footprint | None
) -> tuple[str, Change]:
    once = before.retired.get(f"{kind}:{key}")
    if once is not None and once != fingerprint(value):
        kept = "which models were trained with" if kind == OnDemandView.kind else "whose data may still be stored"
        reason = f"this version was deployed before with another computation, {kept}"
        return "refused", Change(kind, key, reason=reason, advice=_next_version(key, getattr(before, GROUPS[kind])))
    return "added", Change(kind, key, footprint=touched)


def _remove(kind: str, key: str, before: Definitions, code: Definitions) -> tuple[str, Change]:
    name, _, version = key.partition("@")
    others = [service.version for service in code.services.values() if service.name == name]
    if kind == "service" and others and before.active.get(name) == int(version):
        reason = f"it is the active version of {name!r}, which models ask for by that name"
        advice = f"first flip to another version: forebay flip {name} --to {max(others)}"
        return "refused", Change(kind, key, reason=reason, advice=advice)
    pinning = [service.key for service in before.services.values() if service.pins(key)]
    if kind not in ("view", OnDemandView.kind) or not pinning:
        return "removed", Change(kind, key)
    reason = f"it cannot be removed while {_list(pinning)} is deployed, which pins it"
    advice = f"first remove {_list(pinning)} alone and apply, once no model asks for it any more; then remove the view"
    return "refused", Change(kind, key, reason=reason, advice=advice)


def _keep(
    kind: str, key: str, was: AnyDefinition, now: AnyDefinition, before: Definitions, code: Definitions
) -> tuple[str, Change]:
    """A definition that is deployed and in the code."""
    differences = tuple(compare(flatten(describe(was)), flatten(describe(now))))
    refusal = _refuse(was, now, before, code)
    if refusal is not None:
        return "refused", refusal
    if differences:
        moved = kind == "source" and any(one.path in PLACES for one in differences)
        return "changed", Change(kind, key, differences, advice=MOVED if moved else "")
    if describe(was) != describe(now):
        return "changed", Change(kind, key, (Difference("order", "as deployed", "another"),))
    return "kept", Change(kind, key)


def _refuse(was: AnyDefinition, now: AnyDefinition, before: Definitions, code: Definitions) -> Change | None:
    staying = [view for key, view in before.views.items() if key in code.views]
    if isinstance(was, Entity) and isinstance(now, Entity):
        return _refuse_entity(was, now, staying)
    if isinstance(was, AnySource) and isinstance(now, AnySource):
        found = refuse_source(was, now, staying)
        if found is None:
            return None
        return Change("source", was.name, tuple(found.differences), None, found.reason, found.advice)
    if isinstance(was, FeatureService) and isinstance(now, FeatureService):
        return _refuse_service(was, now, before, code)
    if isinstance(was, OnDemandView) and isinstance(now, OnDemandView):
        return _refuse_on_demand(was, now, before, code)
    assert isinstance(was, WindowedView | BatchView)
    assert isinstance(now, WindowedView | BatchView)
    return _refuse_view(was, now, before, code)


def _refuse_by_archive(
    was: AnyDefinition | None, now: AnyDefinition | None, archives: Archives | None
) -> Change | None:
    """The refusal of a source that does not go with what its archive holds."""
    if archives is None or not isinstance(now, EventSource):
        return None
    before = was if isinstance(was, EventSource) else None
    return _refuse_start(before, now, archives) or _refuse_stored(before, now, archives)


def _refuse_start(was: EventSource | None, now: EventSource, archives: Archives) -> Change | None:
    """The refusal of a `history_start` that was raised past archived events.

    No day before it is folded any more, so of these events no publication would have a tile, and training would count
    them.
    """
    before = None if was is None else was.history_start
    size = archives(now) if before is None or before < now.history_start else None
    if size is None or size.first_day is None or size.first_day >= now.history_start:
        return None
    first = size.first_day if before is None else min(before, size.first_day)
    reason = (
        f"its archive holds events from {size.first_day} on, before history_start, and online values would lose them"
    )
    advice = f"declare history_start={first!r}; for history that begins later, declare a source under another name"
    return Change("source", now.name, (Difference("history_start", before, now.history_start),), None, reason, advice)


def _refuse_stored(was: EventSource | None, now: EventSource, archives: Archives) -> Change | None:
    """The refusal of a column that was declared once, is no more, and would come back as another type."""
    new = now.schema.keys() - (set() if was is None else was.schema.keys())
    size = archives(now) if new else None
    stored = {name: kind for name, kind in (size.otherwise if size else {}).items() if name in new}
    if not stored:
        return None
    held = ", ".join(f"{name!r} as {kind}" for name, kind in stored.items())
    differences = tuple(Difference(f"schema.{name}", kind, str(now.schema[name])) for name, kind in stored.items())
    advice = f"declare it under another name, such as '{next(iter(stored))}_2'"
    reason = f"its archive holds {held}, of when it was declared so"
    return Change("source", now.name, differences, None, reason, advice)


def _refuse_entity(was: Entity, now: Entity, staying: Iterable[AnyView]) -> Change | None:
    differences = compare(signature(was), signature(now))
    users = [view.key for view in staying if view.entity.name == was.name]
    if not differences or not users:
        return None
    reason = f"its keys changed, and everything stored of {_list(users)} is found by them"
    advice = "declare a new entity beside it, and new versions of the views on it"
    return Change("entity", was.name, tuple(differences), None, reason, advice)


def _refuse_view(was: AnyView, now: AnyView, before: Definitions, code: Definitions) -> Change | None:
    differences = [one for one in compare(signature(was), signature(now)) if not _is_upstream(one, was, now)]
    if type(was) is not type(now):
        differences.insert(0, Difference("kind", was.kind, now.kind))
    if not differences:
        return None
    advice = _next_version(was.key, before.views, code.views)
    if isinstance(was, WindowedView) and all(_is_added(one) for one in differences):
        reason = (
            f"it got features under an unchanged version {was.version}; the tiles of a version are packed by its "
            "features, so stream, publisher and readers would have to change in one instant"
        )
        advice += f": its backfill takes over the tiles of {was.key}, and folds only what these lack"
    else:
        reason = f"its computation changed under an unchanged version {was.version}"
    return Change("view", was.key, tuple(differences), None, reason, advice)


def _refuse_on_demand(was: OnDemandView, now: OnDemandView, before: Definitions, code: Definitions) -> Change | None:
    differences = compare(signature(was), signature(now))
    if not differences:
        return None
    reason = f"its computation changed under an unchanged version {was.version}, which models were trained with"
    advice = _next_version(was.key, before.on_demand, code.on_demand)
    return Change(was.kind, was.key, tuple(differences), None, reason, advice)


def _is_added(difference: Difference) -> bool:
    """Whether a difference is a feature that was not there."""
    return difference.path.startswith(FEATURES) and difference.path.count(".") == 1 and difference.deployed is None


def _is_upstream(difference: Difference, was: AnyView, now: AnyView) -> bool:
    """Whether a difference is the entity's or the source's own, and is reported there."""
    if difference.path.startswith("entity."):
        return was.entity.name == now.entity.name
    if difference.path.startswith("source."):
        return isinstance(was, WindowedView) and isinstance(now, WindowedView) and was.source.name == now.source.name
    if difference.path.startswith("sources.") and isinstance(was, BatchView) and isinstance(now, BatchView):
        name = difference.path.split(".")[1]
        return all(any(source.name == name for source in view.sources) for view in (was, now))
    return False


def _refuse_service(was: FeatureService, now: FeatureService, before: Definitions, code: Definitions) -> Change | None:
    pinned, wanted = ([f"{view.key}:{name}" for view, name in one.columns()] for one in (was, now))
    if pinned == wanted:
        return None
    differences = [
        *(Difference("features", name, None) for name in pinned if name not in wanted),
        *(Difference("features", None, name) for name in wanted if name not in pinned),
    ] or [Difference("order of features", pinned, wanted)]
    reason = f"its list of features changed under an unchanged version {was.version}, which models rely on"
    advice = _next_version(was.key, before.services, code.services)
    return Change("service", was.key, tuple(differences), None, reason, advice)


def _next_version(key: str, *groups: Mapping[str, Any]) -> str:
    name = key.partition("@")[0]
    versions = [
        int(other.partition("@")[2])
        for other in (key, *(k for group in groups for k in group))
        if other.partition("@")[0] == name
    ]
    return f"leave {key} as it is deployed and declare version={max(versions) + 1} beside it"


def _check_expressions(code: Definitions, before: Definitions, check: Check | None) -> Iterator[Change]:
    for key, view in code.views.items():
        if check is None or not isinstance(view, WindowedView) or before.views.get(key) == view:
            continue
        try:
            check(view)
        except DefinitionError as error:
            yield Change("view", key, reason=str(error), advice="correct the expression")


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
