"""What the online store has lost: what it had acknowledged, and of which the offline store has the proof.

    events          applied online ──▶ acknowledged ──▶ partials in `streamed/`
                    so offsets in `streamed/` ≤ offsets online
    publications    finished online ──▶ noted beside the tiles (`forebay.offline.publications`) ──▶ acknowledged
                    so the number noted ≤ the number online

unless Redis came back without its newest writes. Lives here: finding that out; it is repaired by the flow that begins
next (`streaming/parts.py`) or by `forebay rebuild`. What Redis lost before the offline store had its proof (about a
second of events) cannot be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import redis

from forebay.core.identity import LANES
from forebay.language.view import AnyView, WindowedView
from forebay.offline.tables import OfflineStore
from forebay.offline.tiles_table import app_id
from forebay.online.progress import Progress
from forebay.online.slot_state import read_cuts, read_progress

REPAIR = "run `forebay rebuild`, then start the stream again"
"""What to do about any of them."""


@dataclass(frozen=True)
class LostEvents:
    """The offsets of a partition, `[first, end)`, that a view had applied and the online store no longer has."""

    view: str
    partition: str
    first_offset: int
    end_offset: int
    everything: bool
    """Whether the online store has nothing at all of the stream of this view."""

    def __str__(self) -> str:
        what = "everything" if self.everything else "its newest writes"
        return f"{self.view} lost {what}: {self.partition!r} is applied again from {self.first_offset}"

    def to_dict(self) -> dict[str, str | int | bool]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class LostPublication:
    """The number of a view's last finished publication, and that of the one that the online store has (the least of
    its slots; 0: none).
    """

    view: str
    publication: int
    found: int

    def __str__(self) -> str:
        has = f"number {self.found}" if self.found else "none"
        return f"{self.view} lost its publication number {self.publication}: the slot that is furthest behind has {has}"

    def to_dict(self) -> dict[str, str | int | bool]:
        """For JSON."""
        return asdict(self)


Loss = LostEvents | LostPublication


def losses_of(client: redis.Redis, namespace: str, store: OfflineStore, view: AnyView) -> list[Loss]:
    """What a view has lost."""
    found: list[Loss] = []
    if isinstance(view, WindowedView):
        streamed = store.streamed(view).positions()  # before the progress, which is ahead of it
        found += lost_events(view, streamed, read_progress(client, namespace, view))
    publication = lost_publication(client, namespace, store, view)
    return found if publication is None else [*found, publication]


def lost_events(view: WindowedView, streamed: Mapping[str, int], progress: Sequence[Progress]) -> list[LostEvents]:
    """The events that a view lost, by partition: `streamed` says how far its table is, `progress` each of its slots."""
    partitions = sorted({name.partition("/")[2] for name in streamed})
    return [loss for name in partitions if (loss := _lost_events(view, name, streamed, progress)) is not None]


def lost_publication(client: redis.Redis, namespace: str, store: OfflineStore, view: AnyView) -> LostPublication | None:
    """The publication that a view lost, of all slots or of some."""
    last = store.publications(view).last()  # before the online store, which is ahead of it
    found = min(cut.publication for cut in read_cuts(client, namespace, view)) if last else 0
    return LostPublication(view.key, last, found) if found < last else None


def _lost_events(
    view: WindowedView, name: str, streamed: Mapping[str, int], progress: Sequence[Progress]
) -> LostEvents | None:
    spans = []
    for lane in range(LANES):
        end = streamed.get(app_id(lane, name), 0)
        first = min(slot.next_offset(name) for slot in progress[lane::LANES])
        if first < end:
            spans.append((first, end))
    if not spans:
        return None
    everything = not any(slot.partitions for slot in progress)
    return LostEvents(view.key, name, min(first for first, _ in spans), max(end for _, end in spans), everything)
