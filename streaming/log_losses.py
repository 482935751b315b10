"""Events that a log has lost, which nobody can fill in: they are said.

Unread ones, where that was accepted; those that were applied and whose partition was removed before they were archived;
those that a log may get at offsets that were read before. What the online store has lost is found by
`forebay.backfill.losses`.
"""

from __future__ import annotations

from forebay.language.source import EventSource
from streaming.logs import LOG


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
