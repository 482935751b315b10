"""What the online store has lost: writes that it had acknowledged, of which the offline store has the proof.

    lane of a view      applied online ──▶ acknowledged ──▶ partials in `streamed/`
    so at any moment    offsets in `streamed/` ≤ offsets online, unless Redis came back without its newest writes

Lives here: finding that out when a flow begins, and giving a view back what was published of it when everything is
gone. Filling in the events is no business of this module: the flow resumes at the least of all positions. What Redis
lost before any of it reached `streamed/` (about a second) cannot be told from a flow that died before it was written.
Beside them are events that a log lost, which nobody can fill in: unread ones, where that was accepted, and those that
were applied and whose partition was removed before they were archived. They are said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.core.identity import LANES
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from forebay.online.progress import Progress
from streaming.logs import LOG
from streaming.partials import app_id


@dataclass(frozen=True)
class Loss:
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
        return dict(vars(self))


def say_lost(source: EventSource, partition: str, first_offset: int, end_offset: int) -> None:
    """Say that what a log had at offsets of `[first, end)` was deleted unread, as was accepted."""
    sentence = (
        f"events of {source.name!r} were deleted before they were read, and are passed over, as was accepted: "
        f"{partition!r} from offset {first_offset} to before {end_offset}"
    )
    _warn("lost_unread", sentence, source, partition, first_offset, end_offset)


def say_unarchived(source: EventSource, partition: str, first_offset: int, end_offset: int) -> None:
    """Say that events at offsets of `[first, end)` count online, and are neither archived nor in the log any more."""
    sentence = (
        f"{partition!r} of {source.name!r} is gone from its log, and its events from offset {first_offset} to before "
        f"{end_offset} are in no archive, though they count online: put it back, and they are read again"
    )
    _warn("lost_unarchived", sentence, source, partition, first_offset, end_offset)


def say_went_back(source: EventSource, partition: str, end_offset: int, read_offset: int) -> None:
    """Say that a log ends at an offset before the one up to which it was read."""
    sentence = (
        f"{partition!r} of {source.name!r} ends before offset {end_offset}, and was read up to {read_offset}: its "
        "server lost its newest entries, or it was made anew. Entries that are added in between go unread"
    )
    _warn("log_went_back", sentence, source, partition, end_offset, read_offset)


def _warn(event: str, warning: str, source: EventSource, partition: str, first_offset: int, end_offset: int) -> None:
    offsets = {"first_offset": first_offset, "end_offset": end_offset}
    LOG.warning(event, warning=warning, source=source.name, partition=partition, **offsets)


def losses_of(view: WindowedView, streamed: Mapping[str, int], progress: Sequence[Progress]) -> list[Loss]:
    """What a view lost, by partition: `streamed` says how far its table is, `progress` each of its slots."""
    partitions = sorted({name.partition("/")[2] for name in streamed})
    return [loss for name in partitions if (loss := _loss(view, name, streamed, progress)) is not None]


def _loss(view: WindowedView, name: str, streamed: Mapping[str, int], progress: Sequence[Progress]) -> Loss | None:
    spans = []
    for lane in range(LANES):
        end = streamed.get(app_id(lane, name), 0)
        first = min(slot.next_offset(name) for slot in progress[lane::LANES])
        if first < end:
            spans.append((first, end))
    if not spans:
        return None
    everything = not any(slot.partitions for slot in progress)
    return Loss(view.key, name, min(first for first, _ in spans), max(end for _, end in spans), everything)
