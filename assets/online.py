"""The asset of a view in the online store: what batch has of it, published as a whole.

No `from __future__ import annotations` here: Dagster reads the annotations of an asset's function as they are.
"""

from dagster import AssetExecutionContext, AssetsDefinition, BackfillPolicy, MaterializeResult, multi_asset

from assets.deployment import offline, online, publish_rate
from assets.description import spec, view_columns
from assets.keys import offline_key, online_key
from assets.reporting import clear_errors, reported
from forebay.language.view import AnyView, WindowedView

OF_TILES = "What batch knows, where models read it: published as a whole, up to the cut."
OF_ROWS = "The newest row of every entity, where models read it."


def online_asset(view: AnyView) -> AssetsDefinition:
    """All that is materialized of a view, in the online store; of a windowed view up to the last gapless day."""
    described = spec(
        view,
        online_key(view),
        {"redis"},
        OF_TILES if isinstance(view, WindowedView) else OF_ROWS,
        view_columns(view),
        deps=[offline_key(view)],
    )

    @multi_asset(specs=[described], name=f"online__{view.asset_name}", backfill_policy=BackfillPolicy.single_run())
    def publish(context: AssetExecutionContext) -> MaterializeResult:
        from forebay.backfill.publication import publish_view

        with clear_errors(), online() as (client, namespace):
            published = publish_view(client, namespace, offline(), view, rate=publish_rate())
        context.log.info(published.remark)
        return reported(published)

    return publish
