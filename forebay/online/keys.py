"""The names of everything in the online store, as written down in `docs/formats.md`.

    <ns>:{17}:<entity key>:<view>@<v>:s    stream tiles, rolled up     written by the lane of slot 17
    <ns>:{17}:<entity key>:<view>@<v>:p    stream tiles, pending       appended by the lane of slot 17
    <ns>:{17}:<entity key>:<view>@<v>:b    batch tiles and their cut   written by the publisher of the view
    <ns>:{17}:<entity key>:<view>@<v>:r    batch row                   written by the publisher of the view
    <ns>:{01}:progress:<view>@<v>          how far the stream is applied to the slots of lane 1; on a cluster to slot 1
    <ns>:{17}:cut:<view>@<v>               the cut of the last finished publication
    <ns>:{17}:published:<view>@<v>         the entities that may have a :b or :r
    <ns>:{17}:fence:<source>               the token of the lane that may write the slot's tiles of views of a source
    <ns>:{17}:fence:<view>@<v>             the token of who fills the view beside the flow
    <ns>:{17}:refused:<source>             offsets that the lane of slot 17 passed over because of the clock
    <ns>:lease:<view>@<v>                  the token of the view's publisher
    <ns>:{17}:publisher:<view>@<v>         on a cluster: the same, numbered, which guards the slot
    <ns>:{17}:written1:<view>@<v>          on a cluster: how many chunks it wrote to the slot on one of two connections
    <ns>:publishers                        on a cluster: how many publishers have taken a lease
    <ns>:flows                             how many flows have taken over
    <ns>:streams:<source>                  the views that the source's flow streams
    <ns>:{17}:streams:<source>             on a cluster: the same, beside the token of the slot
    <ns>:alive:<source>                    signs of life of the source's flow
    <ns>:manifest                          the deployed definitions
    <ns>:active                            which version of each service is active

`17` is the slot of the entity, in braces because that makes it a Redis Cluster hash tag: there an entity's keys and its
slot's progress live on one node. On one server the slots of a lane go on together, and their progress is written once
(docs/adr/0261). An entity key has no colon (`forebay.core.identity`), so no two names can meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import redis

from forebay.core.identity import LANES, SLOTS, slot_of
from forebay.online.cluster import Cluster

STREAM, PENDING, BATCH, ROW = "s", "p", "b", "r"

Ints = npt.NDArray[np.int64]


class Keys:
    """Names within one namespace. `apart`: on a cluster, where each slot says for itself how far it is."""

    def __init__(self, namespace: str, *, apart: bool = False) -> None:
        self._namespace, self._apart = namespace, apart
        self._heads = [f"{namespace}:{{{slot:02d}}}:" for slot in range(SLOTS)]

    @staticmethod
    def of(client: redis.Redis, namespace: str) -> Keys:
        """The names in the store that a client is of."""
        return Keys(namespace, apart=isinstance(client, Cluster))

    def stream(self, view: str, entity: str) -> str:
        """The rolled-up stream tiles of an entity."""
        return self._of(view, entity, STREAM)

    def pending(self, view: str, entity: str) -> str:
        """The pending stream tiles of an entity."""
        return self._of(view, entity, PENDING)

    def batch(self, view: str, entity: str) -> str:
        """The batch tiles of an entity."""
        return self._of(view, entity, BATCH)

    def row(self, view: str, entity: str) -> str:
        """The batch row of an entity."""
        return self._of(view, entity, ROW)

    def many(self, view: str, entities: Iterable[str], slots: Iterable[int], kind: str) -> list[str]:
        """The names of one `kind` for many entities, whose slots are known."""
        heads, tail = self._heads, f":{view}:{kind}"
        return [heads[slot] + entity + tail for entity, slot in zip(entities, slots, strict=True)]

    def parts(self, view: str, kind: str) -> tuple[list[str], str]:
        """What stands before an entity in the names of one `kind`, by slot, and what stands behind it."""
        return list(self._heads), f":{view}:{kind}"

    def tellers(self, slots: Ints) -> Ints:
        """Under which slot it stands how far each of some slots is: those of a lane are written together.

        >>> Keys("shop").tellers(np.array([1, 9, 63])).tolist()
        [1, 1, 7]
        """
        return slots if self._apart else slots % LANES

    def progress(self, view: str, slots: Sequence[int]) -> list[str]:
        """Where it stands how far the stream is applied to each of some slots of a view; of several in one place."""
        return self.slots("progress", view, self.tellers(np.array(slots, np.int64)).tolist())

    def cut(self, view: str, slot: int) -> str:
        """The cut of the last finished publication of a view."""
        return f"{self._heads[slot]}cut:{view}"

    def published(self, view: str, slot: int) -> str:
        """The entities of a slot that may have a batch blob or row of a view."""
        return f"{self._heads[slot]}published:{view}"

    def fence(self, slot: int, owner: str) -> str:
        """Who may write the stream tiles of a slot, for the views of a source; or for a view that is filled beside."""
        return f"{self._heads[slot]}fence:{owner}"

    def refused(self, slot: int, source: str) -> str:
        """Offsets that the lane whose first slot it is passed over because of the clock."""
        return f"{self._heads[slot]}refused:{source}"

    def lease(self, view: str) -> str:
        """Who may publish a view."""
        return f"{self._namespace}:lease:{view}"

    def publishers(self) -> str:
        """How many publishers have taken a lease on a cluster."""
        return f"{self._namespace}:publishers"

    def publisher(self, view: str, slot: int) -> str:
        """Who may publish a slot of a view on a cluster: the token of who has the lease, numbered."""
        return f"{self._heads[slot]}publisher:{view}"

    def written(self, view: str, slot: int) -> list[str]:
        """The number of the last chunk that a publisher wrote to a slot of a cluster, on each of its connections."""
        return [f"{self._heads[slot]}written{number}:{view}" for number in (1, 2)]

    def flows(self) -> str:
        """How many flows have taken over."""
        return f"{self._namespace}:flows"

    def streams(self, source: str) -> str:
        """The views that the flow of a source streams."""
        return f"{self._namespace}:streams:{source}"

    def slot_streams(self, slot: int, source: str) -> str:
        """The same in a slot of a cluster, where it stands beside the slot's token."""
        return f"{self._heads[slot]}streams:{source}"

    def alive(self, source: str) -> str:
        """Signs of life of a source's flow."""
        return f"{self._namespace}:alive:{source}"

    def manifest(self) -> str:
        """The deployed definitions."""
        return f"{self._namespace}:manifest"

    def active(self) -> str:
        """Which version of each service is active."""
        return f"{self._namespace}:active"

    def slots(self, name: str, view: str, slots: Sequence[int]) -> list[str]:
        """The names of `cut`, `published` or `progress` for many slots."""
        return [f"{self._heads[slot]}{name}:{view}" for slot in slots]

    def _of(self, view: str, entity: str, kind: str) -> str:
        return f"{self._heads[slot_of(entity)]}{entity}:{view}:{kind}"
