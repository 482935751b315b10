"""What Dagster shows of a definition: group, owners, tags, description, columns, version. Nothing here runs.

A definition says what it likes; Dagster refuses some of it (an owner that is neither an address nor a team, a tag
with a space). What it would refuse goes into the metadata as text, so that no definition can keep the UI from loading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dagster import AssetKey, AssetSpec, MetadataValue, TableColumn, TableSchema

from forebay.instants import duration_text
from forebay.language.fingerprint import fingerprint
from forebay.language.service import FeatureService
from forebay.language.source import AnySource, EventSource, FileStream, KafkaTopic, RedisStream, TableSource
from forebay.language.types import AnyType
from forebay.language.view import AnyView, WindowedView

AnyDefinition = AnySource | AnyView | FeatureService

_OWNER = re.compile(r"team:[A-Za-z0-9_-]+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
_TAG_KEY = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
_GROUP = re.compile(r"[^A-Za-z0-9_]")
DOMAIN = "domain"
"""The tag that names the group of an asset."""


def spec(
    definition: AnyDefinition,
    key: AssetKey,
    kinds: set[str],
    what: str,
    columns: Mapping[str, str] | None = None,
    **more: Any,
) -> AssetSpec:
    """The asset of a definition; `what` says what of it the asset is."""
    tags, refused = _tags(definition)
    metadata: dict[str, Any] = {**refused, **_facts(definition)}
    if columns is not None:
        metadata["dagster/column_schema"] = TableSchema([TableColumn(name, kind) for name, kind in columns.items()])
    owned = bool(_OWNER.fullmatch(definition.owner))
    if definition.owner and not owned:
        metadata["owner"] = definition.owner
    return AssetSpec(
        key,
        description=f"{definition.description}\n\n{what}".strip(),
        group_name=_GROUP.sub("_", definition.tags.get(DOMAIN) or _group_without_domain(definition)),
        owners=[definition.owner] if owned else [],
        kinds=kinds,
        tags=tags,
        metadata=metadata,
        **more,
    )


def view_columns(view: AnyView) -> dict[str, str]:
    """The keys and features of a view with their types."""
    return {**_texts(view.entity.keys), **{name: str(feature.type) for name, feature in view.outputs().items()}}


def source_columns(source: AnySource) -> dict[str, str]:
    """The columns of a source with their types."""
    return _texts(source.schema)


def stream_kind(source: EventSource) -> str:
    """What a source's stream is held in."""
    kinds: dict[type, str] = {FileStream: "file", KafkaTopic: "kafka", RedisStream: "redis"}
    return kinds[type(source.stream)]


def _group_without_domain(definition: AnyDefinition) -> str:
    if isinstance(definition, FeatureService):
        return "services"
    return "sources" if isinstance(definition, EventSource | TableSource) else "views"


def _texts(columns: Mapping[str, AnyType]) -> dict[str, str]:
    return {name: str(kind) for name, kind in columns.items()}


def _tags(definition: AnyDefinition) -> tuple[dict[str, str], dict[str, str]]:
    """Tags that Dagster takes, and the others as metadata."""
    tags, refused = {}, {}
    for name, value in definition.tags.items():
        if _TAG_KEY.fullmatch(name) and _TAG_VALUE.fullmatch(value):
            tags[name] = value
        else:
            refused[f"tag {name}"] = value
    return tags, refused


def _facts(definition: AnyDefinition) -> dict[str, Any]:
    """What one wants to know of a definition at a glance."""
    facts: dict[str, Any] = {}
    if isinstance(definition, EventSource):
        facts |= {"lateness": definition.lateness, "history_start": definition.history_start}
        if definition.dedupe is not None:
            facts["dedupe"] = definition.dedupe
    elif isinstance(definition, TableSource):
        facts |= {"path": definition.path} if definition.path else {}
        facts |= {"sql": MetadataValue.md(f"```sql\n{definition.sql}\n```")} if definition.sql else {}
    elif isinstance(definition, WindowedView):
        windows = {feature.window(text) for feature in definition.features for text in feature.windows}
        hops = sorted({window.hop_us for window in windows})
        facts |= {"entity": definition.entity.name, "hops": ", ".join(map(duration_text, hops))}
        facts |= {"where": definition.where} if definition.where else {}
    elif not isinstance(definition, FeatureService):
        facts |= {"entity": definition.entity.name, "partitions": definition.partitions}
    for name in ("ttl", "freshness", "refresh", "reach", "history"):
        text = getattr(definition, name, None)
        facts |= {name: text} if text else {}
    return facts | {"fingerprint": fingerprint(definition)}
