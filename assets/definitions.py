"""Everything that Dagster serves, merged: `defs`, made from the definitions that FOREBAY_DEFINITIONS names.

dagster dev -w workspace.yaml
dagster asset materialize -m assets.definitions --select tiles/clicks_v1 --partition-range 2024-01-01...2024-01-31
"""

from __future__ import annotations

from itertools import chain

from dagster import Definitions, in_process_executor

from assets.batch import features_asset
from assets.comparison import comparison_checks
from assets.deployment import declared
from assets.history import history_asset
from assets.learned import learned_asset
from assets.maintenance import maintain_job, maintain_schedule, maintained_asset
from assets.online import online_asset
from assets.retirement import retired_asset
from assets.schedules import refresh_schedule
from assets.services import service_spec, training_asset
from assets.sources import sessions_spec, source_specs
from assets.windowed import tiles_asset
from forebay.language import definitions as language
from forebay.language.learned import statistics_of
from forebay.language.view import BatchView, WindowedView


def make_definitions(deployed: language.Definitions) -> Definitions:
    """The assets and schedules of all sources, views and services."""
    windowed = [view for view in deployed.views.values() if isinstance(view, WindowedView)]
    sessions = {view.sessions.name: view.sessions for view in windowed if view.sessions is not None}
    batch = [view for view in deployed.views.values() if isinstance(view, BatchView)]
    schedules = [refresh_schedule(view) for view in deployed.views.values()]
    return Definitions(
        assets=[
            *chain.from_iterable(source_specs(source) for source in deployed.sources.values()),
            *(sessions_spec(one) for one in sessions.values()),
            *(tiles_asset(view) for view in windowed),
            *(features_asset(view) for view in batch),
            *(online_asset(view) for view in deployed.views.values()),
            *(history_asset(view) for view in deployed.views.values() if view.history is not None),
            *chain.from_iterable((training_asset(s), service_spec(s)) for s in deployed.services.values()),
            *(learned_asset(view) for view in deployed.views.values() if statistics_of(view)),
            maintained_asset(deployed),
            retired_asset(),
        ],
        asset_checks=comparison_checks(deployed.views.values()),
        jobs=[maintain_job],
        schedules=[maintain_schedule, *(schedule for schedule in schedules if schedule is not None)],
        # One process per run: each step of its own would spend seconds on importing Dagster again.
        executor=in_process_executor,
    )


defs = make_definitions(declared())
