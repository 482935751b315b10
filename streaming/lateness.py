"""Late events: behind the newest event of their own partition by more than the source's lateness.

Lives here: the judgement, as a function of the partition's order alone. It does not depend on other partitions, on
how the log is cut into chunks or on when it is read, so a replay judges as the first run did.

    offset     0     1     2     3     4
    ts        10:00 10:20 10:05 10:12 10:21     lateness 10m
    newest      –   10:00 10:20 10:20 10:20     (of the events before)
    late                    ×

Why this is enough for the batch side: a cut is at most the archive's watermark − lateness, the watermark at most each
partition's newest archived event, and a partition is archived in order. An event below a cut that was not yet
archived when that watermark was read comes after the event that made it, so it is late here, and its date is marked
for repair.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forebay.instants import DAY_US, day_text

INT64_MIN = -(2**63)


def late_rows(ts: npt.NDArray[np.int64], newest_us: int, lateness_us: int) -> npt.NDArray[np.bool_]:
    """Which events are late, in the order of their offsets, after events of which the newest was at `newest_us`."""
    newest = np.maximum.accumulate(np.concatenate((np.array([newest_us], np.int64), ts)))[:-1]
    seen = newest > INT64_MIN
    return seen & (ts < np.where(seen, newest, 0) - lateness_us)


def dates_of(ts: npt.NDArray[np.int64]) -> list[str]:
    """The UTC dates of instants, each once, in order."""
    return [day_text(int(day) * DAY_US) for day in np.unique(ts // DAY_US)]
