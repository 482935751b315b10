"""The assets of a windowed view: its tiles by day, and its publication to the online store.

No `from __future__ import annotations` here: Dagster reads the annotations of an asset's function as they are.
"""

from dagster import AssetExecutionContext, AssetsDefinition, BackfillPolicy, MaterializeResult, multi_asset

from assets.deployment import offline, online, publish_rate
from assets.description import spec, view_columns
from assets.keys import offline_key, online_key, source_key
from assets.partitions import partitions_of, window_us
from assets.reporting import clear_errors, reported
from forebay.language.view import WindowedView


def tiles_asset(view: WindowedView) -> AssetsDefinition:
    """The batch fold of a view by day; a run over a range of days is one commit."""
    described = spec(
        view,
        offline_key(view),
        {"deltalake", "numpy"},
        "Partial aggregates of each day: the same fold as the stream's.",
        deps=[source_key(view.source)],
        partitions_def=partitions_of(view),
    )

    @multi_asset(specs=[described], name=f"tiles__{view.asset_name}", backfill_policy=BackfillPolicy.single_run())
    def tiles(context: AssetExecutionContext) -> MaterializeResult:
        from forebay.backfill.tiles import fold_dates

        start_us, end_us = window_us(context)
        with clear_errors():
            return reported(fold_dates(offline(), view, start_us, end_us))

    return tiles


def online_tiles_asset(view: WindowedView) -> AssetsDefinition:
    """All tiles that are materialized, in the online store, and the cut at the end of the last gapless day."""
    described = spec(
        view,
        online_key(view),
        {"redis"},
        "What batch knows, where models read it: published as a whole, up to the cut.",
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
