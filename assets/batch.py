"""The asset of a batch view in the offline store: its rows by partition.

No `from __future__ import annotations` here: Dagster reads the annotations of an asset's function as they are.
"""

from dagster import AssetExecutionContext, AssetsDefinition, BackfillPolicy, MaterializeResult, multi_asset

from assets.deployment import offline
from assets.description import spec, view_columns
from assets.keys import offline_key, source_key
from assets.partitions import partitions_of, tick_us, wall_clock_us, window_us
from assets.reporting import clear_errors, reported
from forebay.language.view import BatchView
from forebay.settings import Settings


def features_asset(view: BatchView) -> AssetsDefinition:
    """The rows of a view by partition; a run over a range of partitions is one commit."""
    described = spec(
        view,
        offline_key(view),
        {"deltalake", "duckdb"},
        "Rows with the instant from which each holds.",
        {**view_columns(view), "event_timestamp": "Timestamp", "created_timestamp": "Timestamp"},
        deps=[source_key(source) for source in view.sources],
        partitions_def=partitions_of(view),
    )

    @multi_asset(specs=[described], name=f"features__{view.asset_name}", backfill_policy=BackfillPolicy.single_run())
    def features(context: AssetExecutionContext) -> MaterializeResult:
        from forebay.backfill.batch_view import compute_batch_view

        now_us = wall_clock_us()
        start_us, end_us = (0, now_us) if described.partitions_def is None else window_us(context)
        home, tick = Settings.from_env().home, tick_us(view.refresh, now_us)
        with clear_errors():
            done = compute_batch_view(offline(), view, start_us, end_us, home=home, now_us=now_us, tick_us=tick)
        return reported(done)

    return features
