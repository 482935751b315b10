"""The files through which flights reach the store: history to load, streams that grow, tables and the spine.

Lives here: cutting the year's tables at instants and writing the files. Only this module decides on paths.

    $FOREBAY_HOME/demo/history/*.parquet   events before the split, for `forebay load`
    $FOREBAY_HOME/stream/*.ndjson          events after it, appended up to each pause
    $FOREBAY_HOME/tables/*.parquet         weather and aircraft, each row with the instant from which it holds
    $FOREBAY_HOME/demo/*.parquet           spines and training sets
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from demo.flights import Flights
from demo.timeline import Timeline

SOURCES = ("departures", "arrivals")


@dataclass(frozen=True, slots=True)
class Files:
    """Where the demo's files are."""

    home: Path

    @property
    def work(self) -> Path:
        """The demo's own folder: logs, spines, training sets."""
        return self.home / "demo"

    def history(self, source: str) -> Path:
        """The events of `source` before the split."""
        return self.work / "history" / f"{source}.parquet"

    def stream(self, source: str) -> Path:
        """The growing file that `feature_defs/sources.py` names as the source's stream."""
        return self.home / "stream" / f"{source}.ndjson"

    def table(self, name: str) -> Path:
        """The file that `feature_defs/sources.py` names as the table's."""
        return self.home / "tables" / f"{name}.parquet"


def between(table: pa.Table, column: str, start_us: int, end_us: int) -> pa.Table:
    """The rows whose instant lies in `[start_us, end_us)`."""
    instants = table[column].cast(pa.int64())
    return table.filter(pc.and_(pc.greater_equal(instants, start_us), pc.less(instants, end_us)))


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_history(files: Files, flights: Flights, timeline: Timeline) -> dict[str, int]:
    """Write the history of each source, the tables and empty streams; returns the number of events per source."""
    counts = {}
    for source in SOURCES:
        events = between(getattr(flights, source), "ts", timeline.start_us, timeline.split_us)
        _write(events, files.history(source))
        files.stream(source).parent.mkdir(parents=True, exist_ok=True)
        files.stream(source).touch()
        counts[source] = events.num_rows
    _write(flights.weather.drop_columns(["observed_at"]), files.table("weather"))
    _write(flights.planes.select(["tail_number", "effective_at", "built", "seats"]), files.table("planes"))
    return counts


def append_stream(files: Files, flights: Flights, start_us: int, end_us: int) -> int:
    """Append the events of `[start_us, end_us)` to the streams, one JSON object a line; returns how many."""
    count = 0
    for source in SOURCES:
        rows = between(getattr(flights, source), "ts", start_us, end_us).to_pylist()
        with files.stream(source).open("ab") as lines:
            lines.write(msgspec.json.Encoder().encode_lines(rows))
        count += len(rows)
    return count


def spine(flights: Flights, timeline: Timeline) -> pa.Table:
    """Every flight at its scheduled departure."""
    return between(flights.spine, "event_timestamp", timeline.start_us, timeline.end_us)


def shifted(table: pa.Table, by_us: int) -> pa.Table:
    """The same rows asked `by_us` earlier: what a model sees whose features are refreshed that rarely."""
    instants = pc.subtract(table["event_timestamp"].cast(pa.int64()), by_us).cast(pa.timestamp("us", "UTC"))
    return table.set_column(table.column_names.index("event_timestamp"), "event_timestamp", instants)
