"""The spine of a training set: entities and instants, one row per row of the result.

May live here: the checks of `entity_df`. No features, no stores.

Invariants: rows keep their order and number, other columns their values; `event_timestamp` is UTC to the
microsecond (what is finer is cut off).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.calls.asked import Asked
from forebay.calls.keyed import Keyed, key_column, keyed_table
from forebay.calls.request import request_columns
from forebay.calls.responses import STATUS_SUFFIX
from forebay.calls.tables import check_all_aware, to_arrow, to_instants
from forebay.core.values import FeatureColumn
from forebay.errors import RequestError, suggestion
from forebay.language.types import AnyType, Int64Type, StringType, Timestamp, TimestampType

WHERE = "entity_df"
TIMESTAMP = "event_timestamp"


@dataclass(frozen=True)
class Spine:
    """The rows asked for: their table, their instants (int64 UTC µs), per entity name who each row is about, and the
    columns that on-demand features need of the request.
    """

    table: pa.Table
    instants_us: npt.NDArray[np.int64]
    keyed: dict[str, Keyed]
    request: dict[str, FeatureColumn]
    first_row: int = 0

    @classmethod
    def of(cls, entity_df: Any, asked: Asked, *, with_statuses: bool = False, first_row: int = 0) -> Spine:
        """The spine of a DataFrame, an Arrow table, or the path of a Parquet, CSV or NDJSON file.

        Raises `RequestError` for missing keys and request columns, wrong types, a naive or null `event_timestamp`, or a
        column that is named as one of the result. `first_row` is the number of the first row, for messages.
        """
        table = to_table(entity_df, asked)
        if TIMESTAMP not in table.column_names:
            raise RequestError(
                f"{WHERE} has no column {TIMESTAMP!r}: the instant, with a time zone, at which each row asks. "
                f"{suggestion(TIMESTAMP, table.column_names)}"
            )
        _check_names(table.column_names, asked, with_statuses=with_statuses)
        instants = to_instants(table[TIMESTAMP], f"{WHERE}[{TIMESTAMP!r}]", first_row)
        table = table.set_column(table.column_names.index(TIMESTAMP), TIMESTAMP, instants)
        for name, kind in asked.keys.items():
            key_column(table, name, kind, WHERE)
        keyed = {name: keyed_table(table, entity, WHERE) for name, entity in asked.entities.items()}
        request = request_columns(table, asked.request, WHERE, first_row)
        return cls(table, np.asarray(instants.cast(pa.int64()).to_numpy()), keyed, request, first_row)


def to_table(entity_df: Any, asked: Asked) -> pa.Table:
    """The rows as they were given, unchecked."""
    return to_arrow(_aware(entity_df, {TIMESTAMP: Timestamp, **asked.request}), WHERE, text_types(asked))


def text_types(asked: Asked) -> dict[str, pa.DataType]:
    """The types of columns of a file of text: keys and texts as declared, instants as they are written."""
    kinds = {name: pa.int64() if isinstance(kind, Int64Type) else pa.string() for name, kind in asked.keys.items()}
    written = {
        name: pa.string() for name, kind in asked.request.items() if isinstance(kind, StringType | TimestampType)
    }
    return {**written, **kinds, TIMESTAMP: pa.string()}


def _check_names(given: list[str], asked: Asked, *, with_statuses: bool) -> None:
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise RequestError(f"{WHERE} has two columns {twice[0]!r}; rename or drop one")
    for column in asked.columns:
        for name in (column.title, *([column.title + STATUS_SUFFIX] if with_statuses else [])):
            if name in given:
                what = "the feature" if name == column.title else "the status of a feature"
                raise RequestError(
                    f"{WHERE} has a column {name!r}, as {what} of {column.view.key!r} is called; "
                    "rename or drop it, or pass full_feature_names=True"
                )


def _aware(entity_df: Any, types: Mapping[str, AnyType]) -> Any:
    """The same rows, with instants of mixed types checked one by one: Arrow would take a naive one for UTC."""
    if isinstance(entity_df, list) and all(isinstance(row, dict) for row in entity_df):
        entity_df = {
            name: [row.get(name) for row in entity_df] for name in dict.fromkeys(k for r in entity_df for k in r)
        }
    check_all_aware(entity_df, types, WHERE)
    return entity_df
