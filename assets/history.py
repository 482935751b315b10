"""The asset of a view's history: finished values by day, for plain SQL.

No `from __future__ import annotations` here: Dagster reads the annotations of an asset's function as they are.
"""

from dagster import AssetExecutionContext, AssetsDefinition, BackfillPolicy, MaterializeResult, multi_asset

from assets.deployment import offline, with_deployed_defaults
from assets.description import spec
from assets.keys import events_key, history_key, offline_key
from assets.partitions import history_days, wall_clock_us, window_us
from assets.reporting import clear_errors, reported
from forebay.language.view import AnyView, WindowedView

COLUMNS = {
    "entity": "String",
    "feature": "String",
    "value": "Float64",
    "value_text": "String",
    "status": "String",
    "event_timestamp": "Timestamp",
    "computed_at": "Timestamp",
    "created_timestamp": "Timestamp",
}


def history_asset(view: AnyView) -> AssetsDefinition:
    """What each feature of a view became and when, on the grid that it declares; each day is replaced as a whole."""
    described = spec(
        view,
        history_key(view),
        {"deltalake"},
        f"Finished values in long form, on a grid of {view.history}: what SQL asks for.",
        {**{name: str(kind) for name, kind in view.entity.keys.items()}, **COLUMNS},
        deps=[events_key(view) if isinstance(view, WindowedView) else offline_key(view)],
        partitions_def=history_days(view),
    )

    @multi_asset(specs=[described], name=f"history__{view.asset_name}", backfill_policy=BackfillPolicy.single_run())
    def history(context: AssetExecutionContext) -> MaterializeResult:
        from forebay.history.finished import write_history

        start_us, end_us = window_us(context)
        with clear_errors():
            deployed = with_deployed_defaults(view)
            return reported(write_history(offline(), deployed, start_us, end_us, now_us=wall_clock_us()))

    return history
