"""The assets of a service: its training set, and the service itself as models read it online.

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

from assets.deployment import offline
from assets.description import spec
from assets.keys import events_key, offline_key, online_key, service_key, training_key
from assets.reporting import clear_errors, reported
from forebay.language.on_demand import OnDemandView
from forebay.language.service import FeatureService
from forebay.language.view import WindowedView


class Spine(Config):
    """Whose features, and when: a Parquet, CSV or NDJSON file with the service's keys and `event_timestamp`; within how
    much memory, and where to put what does not fit (by default where TMPDIR says).
    """

    spine: str
    memory: str = "2GB"
    scratch: str | None = None


def service_spec(service: FeatureService) -> AssetSpec:
    """The service at the end of its lineage."""
    return spec(
        service,
        service_key(service),
        {"redis"},
        "\n\n".join(["What a model reads online under this name.", *_computed(service)]),
        _columns(service),
        deps=[online_key(view) for view in service.views().values()],
    )


def training_asset(service: FeatureService) -> AssetsDefinition:
    """The training set of a service for a spine named in the run's config, point-in-time correct."""
    described = spec(
        service,
        training_key(service),
        {"deltalake"},
        "The service's features as they were at each row of a spine (config: `spine`, a file).",
        _columns(service),
        deps=[events_key(v) if isinstance(v, WindowedView) else offline_key(v) for v in service.views().values()],
    )

    @multi_asset(specs=[described], name=f"training__{service.asset_name}", backfill_policy=BackfillPolicy.single_run())
    def training(context: AssetExecutionContext, config: Spine) -> MaterializeResult:
        from forebay import FeatureStore
        from forebay.offline.training_table import TrainingTable

        with clear_errors(), FeatureStore.connect() as store:
            out = TrainingTable(offline().location, service).claimed()
            how = {"memory": config.memory, "scratch": config.scratch}
            return reported(store.write_historical_features(config.spine, features=service.key, out=out, **how))

    return training


def _computed(service: FeatureService) -> list[str]:
    """What of it is computed on demand, as a list."""
    views = {view.key: view for view, _ in service.columns() if isinstance(view, OnDemandView)}
    return ["\n".join(f"- {_said(view)}" for view in views.values())] if views else []


def _said(view: OnDemandView) -> str:
    inputs = ", ".join(f"{name} ({of.key})" for name, (of, _) in view.arguments().items())
    request = f"of the request's {', '.join(view.request)}" if view.request else ""
    taken = ", and ".join(filter(None, [f"of {inputs}" if inputs else "", request]))
    return f"`{view.key}` is computed at the call, {taken}{f': {view.description}' if view.description else ''}"


def _columns(service: FeatureService) -> dict[str, str]:
    return {name: str(view.outputs()[name].type) for view, name in service.columns()}
