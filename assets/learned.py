"""The asset of a view's statistical defaults: materializing it learns them from history and deploys them.

No `from __future__ import annotations` here: Dagster reads the annotations of an asset's function as they are.
"""

from dagster import AssetExecutionContext, AssetsDefinition, BackfillPolicy, MaterializeResult, multi_asset

from assets.deployment import offline, online
from assets.description import spec
from assets.keys import events_key, learned_key, offline_key
from assets.partitions import wall_clock_us
from assets.reporting import clear_errors
from forebay.language.learned import statistics_of
from forebay.language.view import AnyView, WindowedView


def learned_asset(view: AnyView) -> AssetsDefinition:
    """What the defaults of a view are by its history of now, in the manifest."""
    described = spec(
        view,
        learned_key(view),
        {"numpy"},
        "Its statistical defaults, learned from history; from then on they hold in serving and training alike.",
        {name: str(statistic) for name, statistic in statistics_of(view).items()},
        deps=[events_key(view) if isinstance(view, WindowedView) else offline_key(view)],
    )

    @multi_asset(specs=[described], name=f"learned__{view.asset_name}", backfill_policy=BackfillPolicy.single_run())
    def learned(context: AssetExecutionContext) -> MaterializeResult:
        from forebay.deploy.registry import Registry
        from forebay.history.learning import learn, values_of
        from forebay.settings import Settings

        with clear_errors(), online() as (client, _):
            found = learn(offline(), view, now_us=wall_clock_us())
            number = Registry.open(Settings.from_env(), client).learn(view.key, values_of(found))
        texts = {one.feature: f"{one.value} ({one.statistic}, of {one.values:,} values)" for one in found}
        context.log.info(f"manifest {number}: {texts}")
        return MaterializeResult(metadata={"manifest": number, **texts})

    return learned
