"""The check that a new version of a view is compared with the one before it, on entities that are live.

No `from __future__ import annotations` here: Dagster reads the annotations of a check's function as they are.
"""

from collections.abc import Iterable

from dagster import AssetCheckResult, AssetChecksDefinition, AssetCheckSeverity, MetadataValue, asset_check

from assets.keys import online_key
from assets.reporting import clear_errors
from forebay.language.view import AnyView


def comparison_checks(views: Iterable[AnyView]) -> list[AssetChecksDefinition]:
    """A check for each view beside which an earlier version is declared, with the latest such version."""
    known = list(views)
    return [comparison_check(before, view) for view in known if (before := predecessor(view, known)) is not None]


def predecessor(view: AnyView, views: Iterable[AnyView]) -> AnyView | None:
    """The version before a view's, of the same entity."""
    earlier = [v for v in views if (v.name, v.entity) == (view.name, view.entity) and v.version < view.version]
    return max(earlier, key=lambda one: one.version, default=None)


def comparison_check(before: AnyView, view: AnyView) -> AssetChecksDefinition:
    """It fails, as a warning, where the new version lacks live entities; how values differ is in its metadata."""

    @asset_check(
        asset=online_key(view),
        name=f"compared_with_v{before.version}",
        description=f"What {view.key} says of live entities beside {before.key}: all of them must be there.",
    )
    def compared() -> AssetCheckResult:
        from forebay import FeatureStore

        with clear_errors(), FeatureStore.connect() as store:
            found = store.compare(before.key, view.key)
        shares = {f"equal {one.name}": round(one.share_equal, 6) for one in found.features}
        return AssetCheckResult(
            passed=not found.only_before,
            severity=AssetCheckSeverity.WARN,
            metadata={
                "entities": found.entities,
                "lacking entities": found.only_before,
                "new entities": found.only_after,
                **shares,
                "comparison": MetadataValue.json(plain(found.to_dict())),
            },
        )

    return compared


def plain(value: object) -> object:
    """A value as JSON has it: instants and decimals as text."""
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
