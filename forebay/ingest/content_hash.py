"""Event ids of sources that declare `event_id=content_hash`: a hash of what the event says.

Canonical text of an event: for each column that is not null, in the order of the columns' names, `name=bytes:value`,
joined by commas, where `bytes` is the UTF-8 length of the value. Values are those after rounding: text as it is; Bool
`true` or `false`; Int64, the units of a Decimal and the microseconds of a Timestamp in decimal digits; Float64 as the
signed integer of its 64 bits. The id is the BLAKE2b hash of 16 bytes, in hexadecimal. A new column does not change
the id of events that do not have it.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forebay.ingest.convert import units_of
from forebay.language.source import CONTENT_HASH_BYTES, EventSource


def content_hashes(source: EventSource, table: pa.Table) -> pa.Array:
    """The content hash of each row of a table of events."""
    parts = [_part(name, table[name].combine_chunks()) for name in sorted(source.schema)]
    texts = pc.binary_join_element_wise(*parts, ",", null_handling="skip").cast(pa.binary())
    size = CONTENT_HASH_BYTES // 2
    return pa.array([blake2b(text, digest_size=size).hexdigest() for text in texts.to_pylist()], pa.string())


def _part(name: str, array: pa.Array) -> pa.Array:
    """`name=bytes:value` of each row, null where the value is."""
    value = _texts(array)
    length = pc.binary_length(value).cast(pa.string())
    return pc.binary_join_element_wise(f"{name}=", length, ":", value, "")


def _texts(array: pa.Array) -> pa.Array:
    if pa.types.is_decimal(array.type):
        array = pa.array(units_of(array), pa.int64(), mask=np.asarray(array.is_null()))
    elif pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    elif pa.types.is_floating(array.type):
        array = array.view(pa.int64())
    return array.cast(pa.string())
