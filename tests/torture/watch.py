"""Who reads all the while: no served value may move backwards in event time.

Lives here: a thread that asks for every entity through the client, as a model does. Of each it remembers the lifetime
count, the lifetime maximum and the newest event behind them; none of these may ever fall, whatever is hit, but across a
loss of the online store, which is declared. Where a publication moves a view's cut, late events that the stream had
applied and batch has not folded yet leave its values until their dates are repaired: then only the newest event counts.
Whether it moved is known once it is published: until then what fell is only noted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from forebay.errors import StoreUnavailableError
from tests.torture.ground import Ground
from tests.torture.producer import BUYERS, SHOPS

PAUSE_S = 0.04
GROWING = {
    f"{view}{suffix}@{version}:{feature}_lifetime": (key, entities)
    for view, version, feature, key, entities in (
        ("by_buyer", 1, "buys", "buyer", BUYERS),
        ("by_shop", 2, "largest", "shop", SHOPS),
    )
    for suffix in ("", "_tills")
}
UNKNOWN = ("DEFAULT_EXPIRED", "UNAVAILABLE")
"""What is no answer, and takes none back."""


class Watch(threading.Thread):
    """Reads until it is told to stop; the first value that moved back is its `error`."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(name="reader", daemon=True)
        self._features = ground.features()
        self._enough, self._lock = threading.Event(), threading.Lock()
        self._seen: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._fallen: dict[str, list[str]] = {}
        """What fell of the views that are being published: right only if the cut moves."""
        self.reads = self.refused = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """Read everybody, over and over."""
        try:
            while not self._enough.wait(PAUSE_S):
                for name, (key, entities) in GROWING.items():
                    self._read(name, key, entities)
        except Exception as error:  # noqa: BLE001  whatever it is, the run fails with it
            self.error = error

    def forget(self) -> None:
        """The online store loses something now: what was seen before may go back, once."""
        with self._lock:
            self._seen.clear()

    @contextmanager
    def publishing(self, view: str) -> Iterator[threading.Event]:
        """Within the block a view is published. Who finds that its cut stayed where it was sets what the block gets;
        a publication that broke off may have moved it."""
        stayed = threading.Event()
        with self._lock:
            self._fallen[view] = []
        try:
            yield stayed
        finally:
            with self._lock:
                fallen = self._fallen.pop(view)
                if stayed.is_set() and fallen:
                    self.error = self.error or AssertionError(f"{fallen[0]} while its cut stayed")
                mine = [one for one in self._seen if one[0].startswith(f"{view}:") and not stayed.is_set()]
                self._seen |= {one: (0, self._seen[one][1]) for one in mine}

    def stop(self) -> None:
        """Read no more. Raises what was found."""
        self._enough.set()
        self.join()
        self._features.close()
        self.check()

    def check(self) -> None:
        """Raise what was found."""
        if self.error is not None:
            raise self.error

    def _read(self, name: str, key: str, entities: Sequence[str]) -> None:
        with self._lock:
            rows: Any = [{key: entity} for entity in entities]
            try:
                answer = self._features.get_online_features([name], entity_rows=rows)
            except StoreUnavailableError:
                self.refused += 1
                return
            self.reads += 1
            feature = name.partition(":")[2]
            columns = (answer.to_dict(), answer.statuses, answer.event_timestamps)
            for entity, value, status, at in zip(entities, *(column[feature] for column in columns), strict=True):
                self._see(name, entity, value, status, at)

    def _see(self, name: str, entity: str, value: Any, status: str, at: Any) -> None:
        seen = self._seen.get((name, entity))
        if seen is not None and status not in UNKNOWN:
            assert status == "PRESENT", f"{name} of {entity} was {seen} and is {status}"
            assert at >= seen[1], f"{name} of {entity} went back from {seen[1]} to {at}"
            if value < seen[0]:
                self._fell(name, f"{name} of {entity} went back from {seen[0]} to {value}")
        if status == "PRESENT":
            self._seen[name, entity] = (value, at)

    def _fell(self, name: str, what: str) -> None:
        fallen = self._fallen.get(name.partition(":")[0])
        assert fallen is not None, what
        fallen.append(what)
