"""How far a view is: the two small values that stand beside its tiles in each slot.

`Progress` is written by the stream in the same transaction as the tiles it speaks of, so that what is applied can be
dropped when it comes again; `Cut` by a publisher, last of all, so that it speaks of a finished publication. Both are
MessagePack arrays that begin with a version (`docs/formats.md`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from forebay.core.codec import NO_CUT
from forebay.errors import FormatError
from forebay.online.source_clock import clock_us

FORMAT_VERSION = 1
DECODED_MAX = 128
"""Values of either kind that a process keeps decoded: of a flow that commits each is new, and one of thousands of
partitions takes as many hundred bytes.
"""


class PartitionProgress(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How far a source partition is applied: all offsets below `next_offset`; `newest_us` is its newest event, or the
    instant to which a heartbeat has moved it since.
    """

    next_offset: int
    newest_us: int


@dataclass(frozen=True)
class Progress:
    """How far the stream is applied to one slot of a view.

    `commit` numbers the commit that wrote it. `partitions` are those of the view's source. `targets` are the offsets up
    to which partitions have to be applied before the slot answers: until then the view is being filled. `since_us` is
    where its filling started: the view is right from that instant on, or everywhere (NO_CUT).
    """

    commit: int = 0
    partitions: Mapping[str, PartitionProgress] = field(default_factory=dict)
    targets: Mapping[str, int] = field(default_factory=dict)
    since_us: int = NO_CUT

    @property
    def watermark_us(self) -> int:
        """The instant up to which every partition that has had an event has been seen; NO_CUT before the first."""
        newest = (partition.newest_us for partition in self.partitions.values() if partition.newest_us != NO_CUT)
        return min(newest, default=NO_CUT)

    def next_offset(self, partition: str) -> int:
        """The first offset of a partition that is not applied; 0 if none is."""
        applied = self.partitions.get(partition)
        return applied.next_offset if applied else 0

    def advanced(self, commit: int, spans: Mapping[str, PartitionProgress]) -> Progress:
        """This progress after a commit that covered `spans`; a replay never moves it back."""
        partitions = dict(self.partitions)
        for name, span in spans.items():
            old = partitions.get(name, span)
            partitions[name] = PartitionProgress(
                max(old.next_offset, span.next_offset), max(old.newest_us, span.newest_us)
            )
        targets = {name: end for name, end in self.targets.items() if not _reached(partitions.get(name), end)}
        return replace(self, commit=commit, partitions=partitions, targets=targets)

    def marked(self, lacking: Mapping[str, int]) -> Progress:
        """This progress, which has to wait for what it lacks of the archive, from the beginning, if nothing was ever
        applied to it; if it was being filled, for no more than that.
        """
        if not self.partitions:
            return Progress(self.commit, {}, dict(lacking))
        targets = {name: end for name, end in self.targets.items() if name in lacking}
        return replace(self, targets=targets)

    def aimed(self, targets: Mapping[str, int], since_us: int = NO_CUT) -> Progress:
        """This progress, of a slot that answers once it has applied partitions up to some offsets, of which nothing is
        read that only instants before `since_us` need.
        """
        missing = {name: end for name, end in targets.items() if not _reached(self.partitions.get(name), end)}
        started_us = self.since_us if self.partitions else NO_CUT
        return replace(self, targets=missing, since_us=max(started_us, since_us))

    def beaten(self, ends: Mapping[str, int], seen_us: int) -> Progress:
        """This progress when partitions were seen to end at these offsets, at an instant.

        Those of which all is applied move to the clock of their source (`forebay.online.source_clock`).
        """
        to_us = clock_us(max((one.newest_us for one in self.partitions.values()), default=NO_CUT), seen_us)
        behind = {name: one for name, one in self.partitions.items() if NO_CUT < one.newest_us < to_us}
        moved = {
            name: PartitionProgress(one.next_offset, to_us)
            for name, one in behind.items()
            if name in ends and one.next_offset >= ends[name]
        }
        return replace(self, partitions={**self.partitions, **moved}) if moved else self

    def lacks(self, acknowledged: Progress) -> bool:
        """Whether something that was acknowledged is not in it: the server lost writes."""
        return any(
            self.next_offset(name) < partition.next_offset for name, partition in acknowledged.partitions.items()
        )

    def encode(self) -> bytes:
        """Its bytes."""
        since = () if self.since_us == NO_CUT else (self.since_us,)
        targets = (dict(self.targets),) if self.targets or since else ()
        return msgspec.msgpack.encode((FORMAT_VERSION, self.commit, dict(self.partitions), *targets, *since))

    @staticmethod
    def decode(blob: bytes) -> Progress:
        """The progress of its bytes. Raises `FormatError`."""
        return _progress(blob)


@dataclass(frozen=True)
class Cut:
    """The cut of a finished publication, and its number. `missing_us` is behind the newest event that is archived and
    in no online value of the view (`forebay.backfill.gaps`); NO_CUT: none is.
    """

    cut_us: int = NO_CUT
    publication: int = 0
    missing_us: int = NO_CUT

    def encode(self) -> bytes:
        """Its bytes."""
        missing = () if self.missing_us == NO_CUT else (self.missing_us,)
        return msgspec.msgpack.encode((FORMAT_VERSION, self.cut_us, self.publication, *missing))

    @staticmethod
    def decode(blob: bytes | None) -> Cut:
        """The cut of its bytes; no bytes are no publication. Raises `FormatError`."""
        return Cut() if blob is None else _cut(blob)


class _Progress(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    commit: int
    partitions: dict[str, PartitionProgress]
    targets: dict[str, int] = {}
    since_us: int = NO_CUT


class _Cut(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    cut_us: int
    publication: int
    missing_us: int = NO_CUT


_PROGRESS = msgspec.msgpack.Decoder(_Progress)
_CUT = msgspec.msgpack.Decoder(_Cut)


@functools.lru_cache(maxsize=DECODED_MAX)
def _progress(blob: bytes) -> Progress:
    try:
        found = _PROGRESS.decode(blob)
    except msgspec.DecodeError as error:
        raise _unreadable("progress", error) from None
    _check(found.version, "progress")
    return Progress(found.commit, found.partitions, found.targets, found.since_us)


def _reached(applied: PartitionProgress | None, end: int) -> bool:
    return applied is not None and applied.next_offset >= end


@functools.lru_cache(maxsize=DECODED_MAX)
def _cut(blob: bytes) -> Cut:
    try:
        found = _CUT.decode(blob)
    except msgspec.DecodeError as error:
        raise _unreadable("cut", error) from None
    _check(found.version, "cut")
    return Cut(found.cut_us, found.publication, found.missing_us)


def _check(version: int, what: str) -> None:
    if version != FORMAT_VERSION:
        raise FormatError(
            f"A {what} in the online store has format {version}; this Forebay reads {FORMAT_VERSION}. "
            "Upgrade it, or rebuild the store."
        )


def _unreadable(what: str, error: Exception) -> FormatError:
    return FormatError(
        f"A {what} in the online store cannot be read ({error}); it was not written by this Forebay. Rebuild the store."
    )
