"""What a seed draws before a run begins, beside its faults: each from a chance of its own, so others stay as they are.

May live here: choices that a run is made with. What happens in it is in `simulation.py`.
"""

from __future__ import annotations

import functools
import random

import pytest

import forebay.online.long_blobs
import forebay.online.pending
import forebay.online.shares
from forebay import RedisStream
from forebay.ingest.expressions import Expressions
from forebay.language.view import WindowedView
from tests.simulation.shop import Shop


def stream_of(seed: int, namespace: str, partitions: int) -> RedisStream:
    """Redis Streams of single events or of chunks, which the flow trims or does not."""
    chance = random.Random(f"{seed}: streams")
    chunked, trim = chance.random() < 0.5, chance.random() < 0.5
    return RedisStream(f"{namespace}log", partitions=partitions, chunked=chunked, trim=trim)


def network_of(seed: int) -> tuple[random.Random, float, float]:
    """A chance for the network, how often it holds something up, and how often something of that arrives.

    One run in two has one that holds nothing up.
    """
    chance = random.Random(f"{seed}: network")
    return chance, chance.choice([0, 0, 0.02, 0.06]), chance.choice([0.01, 0.05, 0.2])


def roll_up_early(seed: int, patch: pytest.MonkeyPatch) -> None:
    """Three runs in four roll up early: a shop is too small to get to what a deployment rolls up at."""
    chance = random.Random(f"{seed}: roll-ups")
    if chance.random() < 0.75:
        patch.setattr(forebay.online.pending, "ROLL_BYTES", 1)
        patch.setattr(forebay.online.pending, "ROLL_RECORDS", chance.choice([0, 1, 2, 4]))
        patch.setattr(forebay.online.long_blobs, "ROLL_ENTITIES_MIN", chance.choice([1, 1, 2]))


def divide_early(seed: int, patch: pytest.MonkeyPatch) -> bool:
    """One run in two divides each of its commits by lanes: those of a shop are too small to be divided."""
    does = random.Random(f"{seed}: division").random() < 0.5
    if does:
        patch.setattr(forebay.online.shares, "DIVIDED_MIN", 1)
    return does


def expressions(view: WindowedView) -> Expressions | None:
    """Those of a view: DuckDB takes longer to start than a run should; a run has one thread, so one serves all."""
    return None if view.where is None else _prepared(view.where)


@functools.cache
def _prepared(where: str) -> Expressions:
    return Expressions(next(view for view in Shop.make(None, dedupe=False).views if view.where == where))
