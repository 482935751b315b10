"""Purchases: made-up events of the shop, the same in every run.

Lives here: drawing them and giving them the shapes that contenders read (Arrow, NDJSON, the core's columns). Entities
are drawn from a Zipf-like law, as traffic is: the busiest has far more events than the median.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.shop import purchases
from forebay.core.events import Events
from forebay.ingest.arrow import conform
from forebay.ingest.select import Selector
from forebay.instants import instant_text
from forebay.language.view import WindowedView

ZIPF = 0.9
MERCHANTS = 2_000
PARTITION = "purchases.ndjson"
INSTANT = pa.timestamp("us", "UTC")
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Purchases:
    """Some purchases, in the order of their instants; amounts in cents."""

    first_id: int
    ts: Ints
    users: Ints
    merchants: Ints
    cents: Ints
    items: Ints

    @classmethod
    def drawn(
        cls,
        count: int,
        users: int,
        start_us: int,
        end_us: int,
        *,
        first_id: int = 0,
        first_user: int = 0,
        zipf: float = ZIPF,
    ) -> Purchases:
        """`count` purchases by `users` users within `[start_us, end_us)`."""
        rng = np.random.default_rng(first_id)
        return cls(
            first_id,
            np.sort(rng.integers(start_us, end_us, count)),
            first_user + entities(rng, count, users, zipf),
            entities(rng, count, MERCHANTS, zipf),
            np.round(rng.lognormal(3, 1, count) * 100).astype(np.int64),
            rng.integers(1, 20, count),
        )

    def __len__(self) -> int:
        return len(self.ts)

    def to_arrow(self) -> pa.Table:
        """As a producer would hand them over; amounts as decimals."""
        ids = np.arange(self.first_id, self.first_id + len(self))
        words = np.stack([self.cents, self.cents >> 63], axis=1)
        amounts = pa.Array.from_buffers(pa.decimal128(18, 2), len(self), [None, pa.py_buffer(words)])
        return pa.table(
            {
                "event_id": pa.array(np.char.add("e", ids.astype(str)) if len(ids) else [], pa.string()),
                "ts": pa.array(self.ts, INSTANT),
                "user_id": names("u", self.users),
                "merchant_id": names("m", self.merchants),
                "amount": amounts,
                "items": pa.array(self.items),
            }
        )

    def append_ndjson(self, *paths: Path) -> None:
        """Append them to a log, one to each file in turn, as JSON with ISO instants and amounts as numbers."""
        with contextlib.ExitStack() as stack:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            files = [stack.enter_context(path.open("a")) for path in paths]
            for line, file in zip(self.lines(), itertools.cycle(files)):
                file.write(line)

    def lines(self) -> Iterator[str]:
        """Each as a line of JSON."""
        rows = zip(
            self.ts.tolist(),
            self.users.tolist(),
            self.merchants.tolist(),
            self.cents.tolist(),
            self.items.tolist(),
            strict=True,
        )
        for number, (ts, user, merchant, cents, items) in enumerate(rows, self.first_id):
            yield (
                f'{{"event_id": "e{number}", "ts": "{instant_text(ts)}", "user_id": "u{user}", '
                f'"merchant_id": "m{merchant}", "amount": {cents / 100:.2f}, "items": {items}}}\n'
            )

    def heated(self, share: float) -> Purchases:
        """The same, but that a share of them are of one user."""
        hot = np.random.default_rng(self.first_id).random(len(self)) < share
        return replace(self, users=np.where(hot, self.users[0], self.users))

    def events(self, view: WindowedView) -> Events:
        """As the core sees them, through the rules of ingest."""
        batch, dead = conform(purchases, PARTITION, self.first_id, self.to_arrow(), int(self.ts.max()))
        assert not dead
        return Selector(view).select(batch.table)


def entities(rng: np.random.Generator, draws: int, count: int, zipf: float) -> Ints:
    """Draws of `count` entities: the k-th most frequent with weight k^-zipf, in a random order of entities."""
    weights = np.cumsum(np.arange(1, count + 1) ** -zipf)
    ranks = np.searchsorted(weights, rng.random(draws) * weights[-1])
    order: Ints = np.random.default_rng(count).permutation(count)
    return order[np.minimum(ranks, count - 1)]


def names(prefix: str, numbers: Ints) -> pa.Array:
    """Entity keys such as u17."""
    distinct, codes = np.unique(numbers, return_inverse=True)
    texts = pa.array([f"{prefix}{number}" for number in distinct.tolist()], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), texts).dictionary_decode()
