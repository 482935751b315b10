"""What a run tells Dagster: a result's numbers as metadata, under the same names everywhere, and errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from dagster import Failure, MaterializeResult, MetadataValue

from forebay.errors import ForebayError
from forebay.instants import moment

ROWS = "dagster/row_count"


@contextmanager
def clear_errors() -> Iterator[None]:
    """Within it, an error that Forebay raises on purpose fails the run with its words alone, and is not retried."""
    try:
        yield
    except ForebayError as error:
        raise Failure(str(error), metadata={"error": type(error).__name__}, allow_retries=False) from None


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
