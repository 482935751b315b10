"""What a run tells Dagster: the numbers of a result as metadata, under the same names everywhere."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from dagster import MaterializeResult, MetadataValue

from forebay.instants import moment

ROWS = "dagster/row_count"


def reported(result: Any) -> MaterializeResult:
    """A materialization with the fields of a result (a dataclass): counts, seconds, instants (`…_us`) and texts."""
    metadata: dict[str, Any] = {}
    for field in fields(result):
        value = getattr(result, field.name)
        if value is None:
            continue
        if field.name.endswith("_us"):
            metadata[field.name.removesuffix("_us")] = MetadataValue.timestamp(moment(value))
        elif isinstance(value, tuple):
            metadata[field.name] = MetadataValue.text(", ".join(value) or "none")
        else:
            metadata[ROWS if field.name == "rows" else field.name] = value
    return MaterializeResult(metadata=metadata)
