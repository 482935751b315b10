"""Sources as external assets: what flows in is shown, with its lineage, and is not run from here."""

from __future__ import annotations

from pathlib import PurePath

from dagster import AssetSpec

from assets.description import source_columns, spec, stream_kind
from assets.keys import source_key, stream_key
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


def _stream(source: EventSource) -> list[AssetSpec]:
    if source.stream is None:
        return []
    return [spec(source, stream_key(source), {stream_kind(source)}, "The stream that `forebay stream` reads.")]
