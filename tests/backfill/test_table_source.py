"""Table sources: files and SQL in declared types, and what is wrong with a file said at once."""

from __future__ import annotations

from decimal import Decimal as Number
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forebay import Bool, Decimal, Float64, Int64, String, TableSource, Timestamp
from forebay.errors import ConfigError, StoreError
from forebay.offline.table_source import read_table_source

SCHEMA = {"code": String, "since": Timestamp, "price": Decimal(2), "count": Int64, "share": Float64, "open": Bool}
CSV = """code,since,price,count,share,open,ignored
007,2024-01-02T01:00:00+01:00,1.005,3,0.5,true,x
NA,2024-01-01T00:00:00Z,,,,,
"""
NDJSON = """{"code": "007", "since": "2024-01-02T01:00:00+01:00", "price": 1.005, "count": 3, "share":0.5, "open":true}
{"code": "NA", "since": "2024-01-01T00:00:00Z"}
"""
ROWS = [
    ("NA", "2024-01-01T00:00:00+00:00", None, None, None, None),
    ("007", "2024-01-02T00:00:00+00:00", Number("1.00"), 3, 0.5, True),
]


def source(**more: str) -> TableSource:
    return TableSource("prices", schema=SCHEMA, effective="since", **more)


def rows(table: pa.Table) -> list[tuple[object, ...]]:
    return [
        (r["code"], r["since"].isoformat(), *(r[n] for n in ("price", "count", "share", "open")))
        for r in table.to_pylist()
    ]


@pytest.mark.parametrize(("name", "text"), [("prices.csv", CSV), ("prices.ndjson", NDJSON)])
def test_text_is_read_as_the_schema_says(home: Path, name: str, text: str) -> None:
    (home / name).write_text(text)
    assert rows(read_table_source(source(path=f"${{FOREBAY_HOME}}/{name}"), home)) == ROWS


def test_parquet_folders_and_globs_are_read_whole(home: Path) -> None:
    (home / "prices.csv").write_text(CSV)
    table = read_table_source(source(path=str(home / "prices.csv")), home)
    (home / "parts").mkdir()
    for row in range(2):
        pq.write_table(table.slice(row, 1), home / "parts" / f"{row}.parquet")
    for path in ("${FOREBAY_HOME}/parts", "${PARTS}/*.parquet"):
        assert rows(read_table_source(source(path=path), home, {"PARTS": str(home / "parts")})) == ROWS


def test_sql_may_read_the_path(home: Path) -> None:
    (home / "it's.csv").write_text(CSV)
    text = "SELECT * REPLACE (upper(code) AS code) FROM read_csv('{path}', all_varchar = true) WHERE code = '007'"
    with pytest.raises(StoreError, match=r"'count'.*are no Int64"):
        read_table_source(source(sql=text, path=str(home / "it's.csv")), home)
    text = text.replace("AS code", "AS code, count::int AS count, share::float AS share, open::bool AS open")
    assert rows(read_table_source(source(sql=text, path=str(home / "it's.csv")), home)) == ROWS[1:]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("code,since\n1,2024-01-01T00:00:00Z\n", "no column 'price'"),
        (CSV.replace("1.005", "cheap"), "'price'.*no Decimal\\(2\\) \\(wrong_type\\).*'cheap' in row 0"),
        (CSV.replace("+01:00", ""), "'since'.*no Timestamp"),
        (CSV.replace("2024-01-01T00:00:00Z", ""), "'since' is null in row 1"),
        (CSV.replace(",3,", ",three,"), "cannot be read.*three"),
        (CSV.replace("0.5", "inf"), "'share'.*infinite"),
    ],
)
def test_a_file_that_is_not_as_declared_is_refused(home: Path, text: str, words: str) -> None:
    (home / "prices.csv").write_text(text)
    with pytest.raises(StoreError, match=f"(?s)TableSource 'prices'.*{words}"):
        read_table_source(source(path=str(home / "prices.csv")), home)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("${NOWHERE}/x.csv", "environment variable NOWHERE"),
        ("s3://bucket/x.csv", "is a URL"),
        ("/no/such/file.csv", "has no file"),
        ("${FOREBAY_HOME}/*.txt", "end in .txt"),
    ],
)
def test_a_path_that_leads_nowhere_is_one_clear_error(home: Path, path: str, words: str) -> None:
    (home / "a.txt").write_text("")
    with pytest.raises((ConfigError, StoreError), match=words):
        read_table_source(source(path=path), home, {})
