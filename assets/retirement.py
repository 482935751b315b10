"""The asset that retires a view: its keys and tables go, its version stays taken.

Views that are retired are in no module any more, so one asset serves them all; the run's config names the view.
No `from __future__ import annotations` here: Dagster reads the annotations of an asset's function as they are.
"""

from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    Config,
    MaterializeResult,
    multi_asset,
)

from assets.deployment import offline, online
from assets.keys import retired_key
from assets.reporting import clear_errors


class Retire(Config):
    """Which view (`name@version`) to retire; with `dry_run` only what is stored of it is counted."""

    view: str
    dry_run: bool = False


def retired_asset() -> AssetsDefinition:
    """What was removed of a view that is deployed no more."""

    described = AssetSpec(
        retired_key(),
        description="Removes the keys and tables of a view that is deployed no more (config: `view`, `dry_run`).",
        group_name="maintenance",
        kinds={"redis", "deltalake"},
    )

    @multi_asset(specs=[described], name="retired", backfill_policy=BackfillPolicy.single_run())
    def retired(context: AssetExecutionContext, config: Retire) -> MaterializeResult:
        from forebay.deploy.registry import Registry
        from forebay.deploy.retirement import plan_retirement, retire
        from forebay.online.lane import wall_clock_us
        from forebay.settings import Settings

        location = offline().location
        with clear_errors(), online() as (client, namespace):
            registry = Registry.open(Settings.from_env(), client)
            planned = plan_retirement(registry, client, namespace, location, config.view, now_us=wall_clock_us())
            removed = None if config.dry_run else retire(client, namespace, location, planned)
        context.log.info(f"{config.view}: {'counted' if removed is None else 'removed'}")
        found = {name: value for name, value in planned.to_dict().items() if not isinstance(value, list)}
        return MaterializeResult(metadata={**found, **({} if removed is None else vars(removed))})

    return retired
