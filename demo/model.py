"""A small model of late arrivals, to show what fresh features are worth.

Lives here: matrices from training sets, a gradient-boosted tree and its AUC. It learns from the flights before the
split and is judged on those after it, once with features as of the scheduled departure and once as of a day earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from demo.feed import between

ROWS_TO_LEARN_FROM = 40_000
"""More rows change the third digit of the AUC and take longer than the rest of the demo's step."""
TREES = 50
SEED = 2013


@dataclass(frozen=True, slots=True)
class Learned:
    """A model and what it reads."""

    model: Any
    names: tuple[str, ...]

    def scores(self, table: pa.Table) -> npt.NDArray[np.float64]:
        """The probability of a late arrival for each row."""
        return np.asarray(self.model.predict_proba(matrix(table, self.names))[:, 1])


def matrix(table: pa.Table, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """The features of a table as floats; null becomes NaN, which the trees know how to read."""
    return np.column_stack([table[name].cast(pa.float64()).to_numpy() for name in names])


def labelled(table: pa.Table, start_us: int, end_us: int, instants: pa.ChunkedArray | None = None) -> pa.Table:
    """Rows with a known label whose scheduled departure lies in `[start_us, end_us)`."""
    if instants is not None:
        table = table.set_column(table.column_names.index("event_timestamp"), "event_timestamp", instants)
    rows = between(table, "event_timestamp", start_us, end_us)
    return rows.filter(rows["late"].is_valid())


def learn(table: pa.Table, names: Sequence[str]) -> Learned:
    """A model of `late`, from at most ROWS_TO_LEARN_FROM rows drawn with a fixed seed."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    chosen = np.random.default_rng(SEED).permutation(table.num_rows)[:ROWS_TO_LEARN_FROM]
    rows = table.take(pa.array(np.sort(chosen)))
    model = HistGradientBoostingClassifier(max_iter=TREES, random_state=SEED, early_stopping=False)
    model.fit(matrix(rows, names), rows["late"].to_numpy())
    return Learned(model, tuple(names))


def auc(learned: Learned, table: pa.Table) -> float | None:
    """The area under the ROC curve, or `None` where all labels are the same."""
    from sklearn.metrics import roc_auc_score

    labels = table["late"].to_numpy()
    if len(np.unique(labels)) < 2:
        return None
    return float(roc_auc_score(labels, learned.scores(table)))
