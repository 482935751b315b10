"""Taking turns: contenders run one after another, round by round, so that what slows the machine slows them all.

Lives here: clocks. A contender is called once a round and says what it used; `per_unit` makes one of a function whose
wall and CPU time in this process are of interest. The order is turned round in every other round.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

Measured = Mapping[str, float]
Contender = Callable[[], Measured]
Samples = Mapping[str, list[Measured]]


def interleaved(contenders: Mapping[str, Contender], rounds: int, *, warm_up: bool = True) -> Samples:
    """What each contender used, by round. With `warm_up`, a first round isn't counted."""
    samples: dict[str, list[Measured]] = {name: [] for name in contenders}
    for number in range(-1 if warm_up else 0, rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            gc.collect()
            measured = contenders[name]()
            if number >= 0:
                samples[name].append(measured)
    return samples


def per_unit(work: Callable[[], int]) -> Contender:
    """Wall and CPU µs of this process per unit of work, and units a second; `work` returns how many it did."""

    def contender() -> Measured:
        wall, cpu = time.perf_counter(), time.process_time()
        units = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"wall_us": wall / units * 1e6, "cpu_us": cpu / units * 1e6, "per_s": units / wall}

    return contender
