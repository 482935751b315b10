"""The law, probed: what the online store answers at a pause must be what the training set says for that instant.

A probe is one (entity, instant): every feature of that entity in the service is compared, bit for bit. It is *across
the seam* when the entity has counted events on both sides of the cut, so that its answer needs batch and stream tiles:

    batch tiles          cut          stream tiles      T (the pause)
    ──────●─────●─────────┼────────●──────────●─────────┼──→
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from demo.flights import Flights
from forebay.instants import DAY_US, instant_text

KEYS = ("origin", "carrier", "tail_number")
SHOWN_MAX = 10
"""Mismatches that are written down; all are counted."""


@dataclass(frozen=True, slots=True)
class SeamRule:
    """Which events tell on which side of the cut an entity has some: its source and the reach of its longest window."""

    source: str
    reach_us: int


SEAM_RULES = {
    "origin": SeamRule("departures", 7 * DAY_US),
    "carrier": SeamRule("departures", 30 * DAY_US),
    "tail_number": SeamRule("arrivals", 3660 * DAY_US),
}


@dataclass(frozen=True, slots=True)
class Pause:
    """What was read online at one pause, and the cut of the batch tiles when the stream reached it."""

    instant_us: int
    cut_us: int
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


def judge(pause: Pause, training: pa.Table, features: Mapping[str, Sequence[str]], flights: Flights) -> Verdict:
    """Compare one pause with the training rows of the same requests; `features` lists each key's feature names."""
    verdict = NOTHING_PROBED
    for key, names in features.items():
        keys = pause.online[key].to_numpy(zero_copy_only=False)
        if keys.tolist() != training[key].to_pylist():
            raise ValueError(f"the training set's {key!r} are not the spine's: rows were lost or reordered")
        wrong = {name: different(pause.online[name], training[name]) for name in names}
        entities, first = np.unique(keys, return_index=True)
        any_wrong = np.logical_or.reduce(list(wrong.values()))
        across = across_seam(flights, key, pause, entities)
        verdict += Verdict(
            probes=len(entities),
            across_seam=int(across.sum()),
            mismatches=len(np.unique(keys[any_wrong])),
            values=len(first) * len(names),
            shown=tuple(_shown(pause, training, key, wrong)),
        )
    return verdict


def different(online: pa.ChunkedArray, training: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Rows in which two columns differ: one null and the other not, or not the same value to the last bit."""
    training = training.cast(online.type)
    unequal = pc.fill_null(pc.not_equal(online, training), False)
    nulls = pc.xor(pc.is_null(online), pc.is_null(training))
    return np.asarray(pc.or_(unequal, nulls).to_numpy())


def across_seam(flights: Flights, key: str, pause: Pause, entities: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    """Which of the entities have counted events on both sides of the cut."""
    rule = SEAM_RULES[key]
    connection = duckdb.connect()
    connection.register("events", getattr(flights, rule.source))
    both = connection.sql(
        f"""SELECT {key} FROM events WHERE epoch_us(ts) >= {pause.instant_us - rule.reach_us}
        AND epoch_us(ts) < {pause.instant_us} GROUP BY {key}
        HAVING min(epoch_us(ts)) < {pause.cut_us} AND max(epoch_us(ts)) >= {pause.cut_us}"""
    ).fetchall()
    return np.isin(entities, [row[0] for row in both])


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
