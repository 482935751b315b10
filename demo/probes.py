"""The law, probed: what the online store answers at a pause must be what the training set says for that instant.

A probe is one (entity, instant): every feature of that entity in the service is compared, bit for bit. It is *across
the seam* when the entity has counted events on both sides of the cut, so that its answer needs batch and stream tiles:

    batch tiles          cut          stream tiles      T (the pause)
    ──────●─────●─────────┼────────●──────────●─────────┼──→
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from demo.flights import Flights
from forebay import FeatureService, WindowedView
from forebay.core.codec import NO_CUT
from forebay.instants import instant_text
from forebay.language.on_demand import stored_views

KEYS = ("origin", "carrier", "tail_number")
SHOWN_MAX = 10
"""Mismatches that are written down; all are counted."""


@dataclass(frozen=True, slots=True)
class Pause:
    """What was read online at one pause, and by view the cut that stood behind each row (UTC microseconds)."""

    instant_us: int
    cuts_us: Mapping[str, npt.NDArray[np.int64]]
    online: pa.Table


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the probes came out."""

    probes: int
    across_seam: int
    mismatches: int
    values: int
    shown: tuple[dict[str, str], ...] = ()

    @property
    def one_side(self) -> int:
        """Probes that the batch side or the stream side alone could answer."""
        return self.probes - self.across_seam

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(
            self.probes + other.probes,
            self.across_seam + other.across_seam,
            self.mismatches + other.mismatches,
            self.values + other.values,
            (self.shown + other.shown)[:SHOWN_MAX],
        )


NOTHING_PROBED = Verdict(0, 0, 0, 0)


def rows_at(flights: Flights, instant_us: int, start_us: int) -> pa.Table:
    """One request row per aircraft seen before the instant, with the origin and carrier of its latest flight."""
    connection = duckdb.connect()
    connection.register("spine", flights.spine)
    return connection.sql(
        f"""SELECT arg_max(origin, event_timestamp) AS origin, arg_max(carrier, event_timestamp) AS carrier, tail_number
        FROM spine WHERE tail_number IS NOT NULL AND epoch_us(event_timestamp) BETWEEN {start_us} AND {instant_us - 1}
        GROUP BY tail_number ORDER BY tail_number"""
    ).to_arrow_table()


def with_instant(rows: pa.Table, instant_us: int) -> pa.Table:
    """The request rows as rows of a spine."""
    instants = pa.array(np.full(rows.num_rows, instant_us), pa.timestamp("us", "UTC"))
    return rows.append_column("event_timestamp", instants)


def judge(pause: Pause, training: pa.Table, service: FeatureService, flights: Flights) -> Verdict:
    """Compare one pause with the training rows of the same requests, entity by entity."""
    verdict = NOTHING_PROBED
    for key, names in features_by_key(service).items():
        keys = pause.online[key].to_numpy(zero_copy_only=False)
        if keys.tolist() != training[key].to_pylist():
            raise ValueError(f"the training set's {key!r} are not the spine's: rows were lost or reordered")
        wrong = {name: different(pause.online[name], training[name]) for name in names}
        entities = np.unique(keys)
        any_wrong = np.logical_or.reduce(list(wrong.values()))
        views = [view for view in service.views().values() if key in view.entity.keys]
        windowed = [view for view in views if isinstance(view, WindowedView)]
        across = set().union(*(across_seam(flights, view, key, pause) for view in windowed))
        verdict += Verdict(
            probes=len(entities),
            across_seam=len(across),
            mismatches=len(np.unique(keys[any_wrong])),
            values=len(entities) * len(names),
            shown=tuple(_shown(pause, training, key, wrong)),
        )
    return verdict


def different(online: pa.ChunkedArray, training: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Rows in which two columns differ: one null and the other not, or not the same value to the last bit."""
    training = training.cast(online.type)
    unequal = pc.fill_null(pc.not_equal(online, training), False)
    nulls = pc.xor(pc.is_null(online), pc.is_null(training))
    return np.asarray(pc.or_(unequal, nulls).to_numpy())


def across_seam(flights: Flights, view: WindowedView, key: str, pause: Pause) -> set[str]:
    """The entities with events on both sides of their cut, within the longest window of the view."""
    lengths = [feature.window(window).length_us for feature in view.features for window in feature.windows]
    oldest_us = min(NO_CUT + 1 if length is None else pause.instant_us - length for length in lengths)
    connection = duckdb.connect()
    connection.register("events", getattr(flights, view.source.name))
    connection.register("cuts", pa.table({key: pause.online[key], "cut_us": pause.cuts_us[view.key]}))
    both = connection.sql(
        f"""SELECT {key} FROM (SELECT DISTINCT {key}, cut_us FROM cuts) JOIN events USING ({key})
        WHERE epoch_us(ts) >= {oldest_us} AND epoch_us(ts) < {pause.instant_us}
        GROUP BY {key}, cut_us HAVING min(epoch_us(ts)) < cut_us AND max(epoch_us(ts)) >= cut_us"""
    ).fetchall()
    return {row[0] for row in both}


def features_by_key(service: FeatureService) -> Mapping[str, list[str]]:
    """The service's features by the key of the entity that they are about."""
    names: dict[str, list[str]] = {}
    for view, name in service.columns():
        for key in stored_views(view)[0].entity.keys:
            names.setdefault(key, []).append(name)
    return names


def _shown(
    pause: Pause, training: pa.Table, key: str, wrong: Mapping[str, npt.NDArray[np.bool_]]
) -> list[dict[str, str]]:
    """The first mismatches, with both values."""
    found = []
    for name, rows in wrong.items():
        for row in np.flatnonzero(rows)[:2]:
            found.append(
                {
                    "entity": f"{key}={pause.online[key][row].as_py()}",
                    "instant": instant_text(pause.instant_us),
                    "feature": name,
                    "online": repr(pause.online[name][row].as_py()),
                    "training": repr(training[name][row].as_py()),
                }
            )
    return found[:SHOWN_MAX]
