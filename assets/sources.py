"""Sources as external assets: what flows in is shown, with its lineage, and is not run from here."""

from __future__ import annotations

from pathlib import PurePath

from dagster import AssetSpec

from assets.description import source_columns, spec, stream_kind
from assets.keys import sessions_key, source_key, stream_key
from forebay.language.sessions import SESSION_SCHEMA, Sessionize
from forebay.language.source import AnySource, EventSource, TableSource


def source_specs(source: AnySource) -> list[AssetSpec]:
    """The archive of an event source and its stream, or a table."""
    if isinstance(source, TableSource):
        kind = PurePath(source.path or "").suffix.lstrip(".") or "duckdb"
        return [spec(source, source_key(source), {kind}, "Rows from outside.", source_columns(source))]
    archive = spec(
        source,
        source_key(source),
        {"deltalake"},
        "The archive of all events, written by `forebay stream` and `forebay load`.",
        source_columns(source),
        deps=[stream_key(source)] if source.stream is not None else [],
    )
    return [archive, *_stream(source)]


def sessions_spec(sessions: Sessionize) -> AssetSpec:
    """The sessions in the events of a source: computed by every view of them, and kept nowhere."""
    described = spec(
        sessions.source,
        sessions_key(sessions),
        {"numpy"},
        f"Sessions: events of an entity at most {sessions.gap} apart, for at most {sessions.longest}.",
        {name: str(kind) for name, kind in SESSION_SCHEMA.items()},
        deps=[source_key(sessions.source)],
    )
    return described.merge_attributes(metadata={"gap": sessions.gap, "longest": sessions.longest})


def _stream(source: EventSource) -> list[AssetSpec]:
    if source.stream is None:
        return []
    return [spec(source, stream_key(source), {stream_kind(source)}, "The stream that `forebay stream` reads.")]
