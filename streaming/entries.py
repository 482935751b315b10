"""The entries of Redis Streams, and the offsets of their events.

Lives here: what the bits of an offset are (docs/adr/0106). Invariant: offsets grow as ids do, and give them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forebay.errors import StoreError
from forebay.language.source import RedisStream

Entry = tuple[bytes, Mapping[bytes, bytes]]
"""Its id and its fields."""
SEQUENCE_BITS = 20
"""A million entries of one millisecond; milliseconds then fit until the year 2248."""
EVENTS_PER_ENTRY_MAX = 1024
"""Of a chunked entry; one with more is a dead letter."""


@dataclass(frozen=True)
class EntryLayout:
    """What the 63 bits of an offset are: milliseconds, the entry's sequence number, the event's index in it."""

    sequence_bits: int
    index_bits: int

    def last_id(self, offset: int) -> str:
        """The last entry of which all events lie before an offset, whether the stream has it or not."""
        last = max(0, (offset >> self.index_bits) - 1)
        return f"{last >> self.sequence_bits}-{last & ((1 << self.sequence_bits) - 1)}"

    def offset(self, entry_id: bytes) -> int:
        """The offset of an entry's first event."""
        milliseconds, _, sequence = entry_id.partition(b"-")
        bits = self.sequence_bits + self.index_bits
        if int(sequence) >> self.sequence_bits:
            raise _odd(entry_id, f"less than 2^{self.sequence_bits} entries in a millisecond")
        if int(milliseconds) >> (63 - bits):
            raise _odd(entry_id, f"milliseconds since 1970, as XADD with * gives, which are less than 2^{63 - bits}")
        return int(milliseconds) << bits | int(sequence) << self.index_bits

    def end(self, entry_id: bytes) -> int:
        """The offset behind an entry, however many events it holds."""
        return self.offset(entry_id) + (1 << self.index_bits)


def _odd(entry_id: bytes, expected: str) -> StoreError:
    return StoreError(
        f"Stream entry {entry_id.decode()} has no offset of 64 bits; expected {expected}. Remove it with XDEL, add its "
        "event again, and start the flow anew"
    )


SINGLE = EntryLayout(SEQUENCE_BITS, 0)
CHUNKED = EntryLayout(11, EVENTS_PER_ENTRY_MAX.bit_length() - 1)
"""Two thousand entries of one millisecond, a thousand events of one entry; milliseconds then fit until the year
2109."""


def layout_of(stream: RedisStream) -> EntryLayout:
    """How the offsets of a stream are made."""
    return CHUNKED if stream.chunked else SINGLE


def offset_of(entry_id: bytes) -> int:
    """The offset of an entry that is one event.

    >>> offset_of(b"5-2") == (5 << 20) + 2
    True
    """
    return SINGLE.offset(entry_id)


def id_before(offset: int) -> str:
    """The id after which XREAD finds the entry at `offset` or the next one.

    >>> id_before(offset_of(b"5-2"))
    '5-1'
    """
    return SINGLE.last_id(offset)
