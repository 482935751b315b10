"""Keep a training set in the offline store: `training/<service>@<v>`, replaced as a whole.

The set itself is the client's (`FeatureStore.get_historical_features`); what lives here is where it is kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import pyarrow as pa

from forebay.language.service import FeatureService
from forebay.offline.tables import OfflineStore
from forebay.offline.training_table import TrainingTable


@dataclass(frozen=True)
class Kept:
    """What was written."""

    rows: int
    columns: int
    bytes: int
    seconds: float


def write_training_set(store: OfflineStore, service: FeatureService, table: pa.Table) -> Kept:
    """Replace the stored training set of a service by a table, in one commit."""
    began = time.perf_counter()
    TrainingTable(store.location, service).overwrite(table)
    return Kept(table.num_rows, table.num_columns, table.nbytes, time.perf_counter() - began)
