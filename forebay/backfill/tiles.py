"""Fold the archive into tiles: the stream's fold, run over whole days.

    archive, some days at a time → select → fold → roll up → tiles/<view>, exactly those dates, one commit

Days are folded in chunks, so that memory is bounded by the events of a chunk; hops divide a day, so no tile lies across two. Each
date is recorded as folded in the same commit, with the number of archived events that were folded: a date without
events is known to be empty, and one that has got more events since is known to be behind.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from forebay.backfill.partitions import days
from forebay.core.layout import Layout
from forebay.core.tiles import fold, roll_up
from forebay.errors import RequestError
from forebay.ingest.select import Selector
from forebay.instants import DAY_US, day_text, instant_text
from forebay.language.view import WindowedView
from forebay.stores.tables import OfflineStore

EVENTS_MAX = 2_000_000
"""Archived events that are folded at once: some hundred bytes each while they are columns."""


@dataclass(frozen=True)
class Folded:
    """What a fold wrote."""

    dates: int
    events: int
    rows: int
    entities: int
    bytes: int
    seconds: float
