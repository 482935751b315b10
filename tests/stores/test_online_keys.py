"""Golden names and bytes of the online store: what is stored today must be found tomorrow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from forebay import BatchView, Bool, Decimal, Entity, Feature, Float64, Int64, String, TableSource, Timestamp
from forebay.core.codec import NO_CUT
from forebay.core.rows import Rows
from forebay.errors import FormatError
from forebay.online.keys import BATCH, Keys
from forebay.online.progress import DECODED_MAX, Cut, PartitionProgress, Progress, _cut, _progress
from forebay.online.row_blob import pack_rows, unpack_rows

KEYS = Keys("forebay")


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        (KEYS.stream("recent@1", "JFK"), "forebay:{31}:JFK:recent@1:s"),
        (KEYS.pending("recent@1", "u1"), "forebay:{54}:u1:recent@1:p"),
        (KEYS.batch("recent@2", "DL|4%3A2"), "forebay:{14}:DL|4%3A2:recent@2:b"),
        (KEYS.row("weather@1", "JFK"), "forebay:{31}:JFK:weather@1:r"),
        (
            KEYS.progress("recent@1", [3, 11, 60]),
            [f"forebay:{{{lane}}}:progress:recent@1" for lane in ("03", "03", "04")],
        ),
        (Keys("forebay", apart=True).progress("recent@1", [11]), ["forebay:{11}:progress:recent@1"]),
        (KEYS.cut("recent@1", 63), "forebay:{63}:cut:recent@1"),
        (KEYS.published("recent@1", 0), "forebay:{00}:published:recent@1"),
        (KEYS.fence(17, "shop"), "forebay:{17}:fence:shop"),
        (KEYS.refused(3, "shop"), "forebay:{03}:refused:shop"),
        (KEYS.lease("recent@1"), "forebay:lease:recent@1"),
        (KEYS.flows(), "forebay:flows"),
        (KEYS.manifest(), "forebay:manifest"),
    ],
)
def test_a_name_is_what_it_was(name: str | list[str], golden: str | list[str]) -> None:
    assert name == golden


def test_names_of_many_are_the_names_of_each() -> None:
    assert KEYS.many("recent@1", ["JFK", "u1"], [31, 54], BATCH) == [
        KEYS.batch("recent@1", key) for key in ("JFK", "u1")
    ]
    assert KEYS.slots("cut", "recent@1", [3, 4]) == [KEYS.cut("recent@1", slot) for slot in (3, 4)]


def test_progress_is_the_bytes_it_was() -> None:
    progress = Progress(7, {"part-0": PartitionProgress(4096, 1_387_065_600_000_000)})
    golden = bytes.fromhex("93010781a6706172742d3092cd1000cf0004ed87605e4000")
    assert progress.encode() == golden
    assert Progress.decode(golden) == progress
    assert progress.watermark_us == 1_387_065_600_000_000
    filled = Progress(7, {}, {}, 1_387_065_600_000_001)
    assert filled.encode() == bytes.fromhex("9501078080cf0004ed87605e4001")
    assert Progress.decode(filled.encode()) == filled


def test_a_cut_is_the_bytes_it_was() -> None:
    cut = Cut(1_387_065_600_000_000, 3)
    golden = bytes.fromhex("9301cf0004ed87605e400003")
    assert cut.encode() == golden
    assert Cut.decode(golden) == cut
    assert Cut.decode(None) == Cut(NO_CUT, 0)
    lacking = Cut(1_387_065_600_000_000, 3, 1_387_065_600_000_001)
    assert lacking.encode() == bytes.fromhex("9401cf0004ed87605e400003cf0004ed87605e4001")
    assert Cut.decode(lacking.encode()) == lacking


def test_a_later_format_is_refused_with_advice() -> None:
    with pytest.raises(FormatError, match=r"format 2; this Forebay reads 1\. Upgrade"):
        Cut.decode(bytes.fromhex("93020003"))
    with pytest.raises(FormatError, match="cannot be read"):
        Progress.decode(b"\xff")


def test_of_what_a_flow_wrote_over_little_is_kept_decoded() -> None:
    for commit in range(3 * DECODED_MAX):
        Progress.decode(Progress(commit, {"0": PartitionProgress(commit, 5)}).encode())
        Cut.decode(Cut(commit, commit).encode())
    assert _progress.cache_info().currsize == _cut.cache_info().currsize == DECODED_MAX


def test_progress_never_moves_back_and_knows_what_it_lacks() -> None:
    far = Progress(2, {"0": PartitionProgress(10, 5), "1": PartitionProgress(3, 9)})
    replayed = far.advanced(3, {"0": PartitionProgress(4, 2)})
    assert replayed == Progress(3, far.partitions)
    assert Progress(1, {"0": PartitionProgress(9, 5), "1": PartitionProgress(3, 9)}).lacks(far)
    assert not replayed.lacks(far)
    assert far.watermark_us == 5
    assert Progress().watermark_us == NO_CUT


PLANES = BatchView(
    name="planes",
    version=1,
    entity=Entity("plane", keys={"tail": String}),
    sources=[TableSource("registry", schema={"tail": String, "at": Timestamp}, effective="at", path="x.csv")],
    features=[
        Feature("seats", Int64, default=0),
        Feature("price", Decimal(2), default=0),
        Feature("wear", Float64, default=0.0),
        Feature("owned", Bool, default=False),
        Feature("maker", String, default=""),
        Feature("code", String(max_bytes=4), default=""),
        Feature("built", Timestamp, default="2000-01-01T00:00:00Z"),
    ],
    history_start="2013-01-01",
)
TABLE = pa.table(
    {
        "tail": ["N1", "N2"],
        "seats": [149, None],
        "price": pa.array([1250, None], pa.int64()).cast(pa.decimal128(38, 2)),
        "wear": [0.5, None],
        "owned": [True, None],
        "maker": ["Airbus é", None],
        "code": ["A320", None],
        "built": pa.array([5, None], pa.timestamp("us", "UTC")),
        "event_timestamp": pa.array([7, 8], pa.timestamp("us", "UTC")),
        "created_timestamp": pa.array([9, 10], pa.timestamp("us", "UTC")),
    }
)


def test_a_row_is_the_bytes_it_was() -> None:
    rows = Rows.of(PLANES, TABLE)
    blobs = pack_rows(PLANES, rows, np.arange(2))
    assert [blob.hex() for blob in blobs] == [
        "9501ce3346019c070997cc95ce0001e848cb3fe0000000000000c3a941697262757320c3a9a44133323005",
        "9501ce3346019c080a97c0c0c0c0c0c0c0",
    ]
    columns, event_us = unpack_rows(PLANES, [*blobs, None])
    assert event_us.tolist() == [7, 8, NO_CUT]
    for name, column in rows.columns.items():
        assert columns[name].valid.tolist() == [True, False, False]
        assert columns[name].values.dtype == column.values.dtype
        assert columns[name].values[0] == column.values[0]


def test_a_row_of_another_definition_is_refused() -> None:
    fields = {field: getattr(PLANES, field) for field in PLANES.__struct_fields__}
    other = BatchView(**(fields | {"features": PLANES.features[:3]}))
    blob = pack_rows(PLANES, Rows.of(PLANES, TABLE), np.arange(1))[0]
    with pytest.raises(FormatError, match=r"'planes@1' has format 1 and layout .* publish the view again"):
        unpack_rows(other, [blob])
