"""The asset of a windowed view in the offline store: its tiles by day.

No `from __future__ import annotations` here: Dagster reads the annotations of an asset's function as they are.
"""

from dagster import AssetExecutionContext, AssetsDefinition, BackfillPolicy, MaterializeResult, multi_asset

from assets.deployment import declared, offline
from assets.description import spec
from assets.keys import events_key, offline_key
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
        deps=[events_key(view)],
        partitions_def=partitions_of(view),
    )

    @multi_asset(specs=[described], name=f"tiles__{view.asset_name}", backfill_policy=BackfillPolicy.single_run())
    def tiles(context: AssetExecutionContext) -> MaterializeResult:
        from forebay.backfill.tiles import fold_dates

        start_us, end_us = window_us(context)
        with clear_errors():
            others = [other for other in declared().views.values() if isinstance(other, WindowedView)]
            return reported(fold_dates(offline(), view, start_us, end_us, others))

    return tiles
