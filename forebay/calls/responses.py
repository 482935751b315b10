"""What a call gives back: columns of values, each with a status and an event timestamp, in the shape one wants.

May live here: shapes (Python, pandas, Arrow, NumPy) of answers that have been computed. No stores.

Invariants: columns are the entity keys, then the features, in request order; rows are the request's, in its order;
a value is the same in every shape (`Decimal(n)` is exact but for NumPy's float64).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.calls.tables import to_frame
from forebay.core.values import NO_INSTANT, FeatureColumn, Status, arrow_type
from forebay.instants import SECOND_US, moment
from forebay.language.types import AnyType

if TYPE_CHECKING:
    import pandas as pd

STATUS_NAMES = tuple(status.name for status in Status)
STATUS_SUFFIX = "__status"


@dataclass(frozen=True, eq=False)
class Behind:
    """What stands behind each row of a view: commit number (0: none), cut and watermark (`NO_INSTANT`: none),
    whether the cut is further behind the instant than the view's `retention`, and the instant before which events are
    archived that the view has not got online (`NO_INSTANT`: it has all).
    """

    commits: npt.NDArray[np.int64]
    cuts: npt.NDArray[np.int64]
    watermarks: npt.NDArray[np.int64]
    overdue: npt.NDArray[np.bool_]
    missing: npt.NDArray[np.int64]

    def to_dict(self) -> dict[str, list[Any]]:
        """Python values, one per row."""
        return {
            "commits": [commit or None for commit in self.commits.tolist()],
            "cuts": _moments(self.cuts),
            "watermarks": _moments(self.watermarks),
            "overdue": self.overdue.tolist(),
            "missing": _moments(self.missing),
        }


@dataclass(frozen=True, eq=False)
class OnlineResponse:
    """The answer of an online read: `to_dict`, `to_df`, `to_arrow` or `to_numpy` give its values.

    `keys` are the entity keys as they were asked, `features` the columns by name, `instant_us` the instant of the
    answer, `service` the key of the service that was asked for (`None`: a list of features).
    """

    keys: dict[str, list[Any]]
    key_types: dict[str, AnyType]
    features: dict[str, FeatureColumn]
    instant_us: int
    views: dict[str, Behind]
    service: str | None = None

    @property
    def instant(self) -> datetime:
        """The instant of the values, an aware UTC datetime: events before it count, an event at it does not."""
        return moment(self.instant_us)

    @property
    def metadata(self) -> dict[str, Any]:
        """What stands behind the answer: its `instant`, the `service` as `name@version`, and by view key a list per row
        of `commits` (int), `cuts` and `watermarks` (aware UTC), `None` where there is none, as in batch views;
        `overdue`, whether the cut is further behind than the view's `retention`, which makes values `STALE`; and
        `missing`, before which instant (or `None`) events were loaded that are not online: values of windows that
        reach there are `STALE`, defaults `UNAVAILABLE`.
        """
        return {
            "instant": self.instant,
            "service": self.service,
            "views": {key: behind.to_dict() for key, behind in self.views.items()},
        }

    @property
    def statuses(self) -> dict[str, list[str]]:
        """A status per value, in the shape of `to_dict`: `PRESENT`, `DEFAULT_MISSING`, … (a key is `PRESENT`)."""
        keys = {name: [Status.PRESENT.name] * len(values) for name, values in self.keys.items()}
        return keys | {name: status_names(column) for name, column in self.features.items()}

    @property
    def event_timestamps(self) -> dict[str, list[datetime | None]]:
        """The instant of the newest event behind each value (aware UTC), in the shape of `to_dict`; `None` for none."""
        keys: dict[str, list[datetime | None]] = {name: [None] * len(values) for name, values in self.keys.items()}
        return keys | {name: column.event_timestamps().to_pylist() for name, column in self.features.items()}

    @property
    def ages(self) -> dict[str, list[float | None]]:
        """Seconds from the newest event behind each value to the instant of the answer, in the shape of `to_dict`."""
        keys: dict[str, list[float | None]] = {name: [None] * len(values) for name, values in self.keys.items()}
        return keys | {
            name: [None if us == NO_INSTANT else (self.instant_us - us) / SECOND_US for us in column.event_us.tolist()]
            for name, column in self.features.items()
        }

    def to_dict(self) -> dict[str, list[Any]]:
        """Python values by column: one list per key and feature, one value per row.

        Int64 is int, Float64 float, String str, Bool bool, `Decimal(n)` a `decimal.Decimal`, Timestamp an aware UTC
        datetime.
        """
        return dict(self.keys) | {name: column.to_python() for name, column in self.features.items()}

    def to_arrow(self) -> pa.Table:
        """An Arrow table: int64, double, string, bool, decimal128(38, n), timestamp[us, UTC]."""
        keys = {name: pa.array(values, arrow_type(self.key_types[name])) for name, values in self.keys.items()}
        return pa.table(keys | {name: column.to_arrow() for name, column in self.features.items()})

    def to_df(self) -> pd.DataFrame:
        """A pandas DataFrame; whole numbers with nulls are pandas' Int64."""
        return to_frame(self.to_arrow())

    def to_numpy(self) -> dict[str, npt.NDArray[Any]]:
        """A one-dimensional array per column: `np.column_stack([arrays[name] for name in …])` makes a model's matrix.

        Int64 is int64 (float64 with NaN where some are null), Float64 and `Decimal(n)` float64, Bool bool, Timestamp
        datetime64[us], String and text keys objects.
        """
        keys = {name: _key_array(values, self.key_types[name]) for name, values in self.keys.items()}
        return keys | {name: column.to_numpy() for name, column in self.features.items()}

    def __len__(self) -> int:
        return len(next(iter(self.features.values())))


@dataclass(frozen=True, eq=False)
class TableResponse:
    """An answer that is one table, as `to_df` or `to_arrow`.

    Types are those of `OnlineResponse.to_arrow`; statuses (`<feature>__status`, where asked for) are
    dictionary-encoded text.
    """

    table: pa.Table
    feature_names: tuple[str, ...]

    def to_arrow(self) -> pa.Table:
        """An Arrow table."""
        return self.table

    def to_df(self) -> pd.DataFrame:
        """A pandas DataFrame with an index from 0; whole numbers with nulls are pandas' Int64."""
        return to_frame(self.table)

    def __len__(self) -> int:
        return int(self.table.num_rows)


class TrainingSet(TableResponse):
    """A spine with the features beside it: one row per row of the spine, in its order.

    Columns are the spine's as they were (`event_timestamp` as timestamp[us, UTC]), then the features.
    """


class FeatureHistory(TableResponse):
    """The values of one entity over time: columns are its keys, `instant` (timestamp[us, UTC]), then the features."""


def _moments(instants: npt.NDArray[np.int64]) -> list[datetime | None]:
    return [None if us == NO_INSTANT else moment(us) for us in instants.tolist()]


def status_names(column: FeatureColumn) -> list[str]:
    """The statuses of a column as text."""
    return [STATUS_NAMES[status] for status in column.status.tolist()]


def status_array(column: FeatureColumn) -> pa.Array:
    """The statuses of a column as dictionary-encoded text: a byte a row."""
    return pa.DictionaryArray.from_arrays(pa.array(column.status.astype(np.int8)), pa.array(STATUS_NAMES))


def _key_array(values: list[Any], kind: AnyType) -> npt.NDArray[Any]:
    if None in values or kind.storage == "O" or kind.storage.startswith("S"):
        return np.array([*values, None], object)[:-1]
    return np.array(values, kind.storage)
