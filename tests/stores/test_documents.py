"""Documents: one suite for a folder and for S3."""

from __future__ import annotations

import concurrent.futures
import errno
from pathlib import Path

import pytest
from deltalake.exceptions import DeltaError

from forebay.errors import ConfigError, StoreUnavailableError
from forebay.offline.documents import open_documents
from forebay.offline.location import Location


def test_a_document_is_created_once_and_never_changes(offline_url: str) -> None:
    documents = open_documents(offline_url)
    assert documents.read("registry/a.json") is None
    assert documents.create("registry/a.json", b"first")
    assert not documents.create("registry/a.json", b"second")
    assert documents.read("registry/a.json") == b"first"


def test_many_are_read_together_and_those_that_are_not_there_are_none(offline_url: str) -> None:
    documents = open_documents(offline_url)
    for n in range(0, 40, 2):
        documents.create(f"log/{n}.json", b"%d" % n)
    assert documents.read_all([f"log/{n}.json" for n in range(40)]) == [
        b"%d" % n if n % 2 == 0 else None for n in range(40)
    ]
    assert documents.read_all(["log/0.json"]) == [b"0"]
    assert documents.read_all([]) == []


def test_names_are_those_of_the_folder_in_order(offline_url: str) -> None:
    documents = open_documents(offline_url)
    assert documents.names("registry") == []
    for name in ("registry/b", "registry/a", "elsewhere/c"):
        documents.create(name, b"")
    assert documents.names("registry") == ["registry/a", "registry/b"]


def test_of_many_writers_of_one_name_one_wins(offline_url: str) -> None:
    documents = open_documents(offline_url)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda n: documents.create("registry/one", b"%d" % n), range(8)))
    assert sum(created) == 1
    assert documents.read("registry/one") == b"%d" % created.index(True)


def test_an_s3_that_is_not_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreUnavailableError, match=r"The offline store 's3://bucket/x' does not answer"):
        open_documents("s3://bucket/x").read("a")
    with pytest.raises(StoreUnavailableError, match=r"The offline store 's3://bucket/x' does not answer"):
        open_documents("s3://bucket/x").read_all(["a", "b"])


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://"])
def test_a_url_that_names_no_offline_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected (a folder or )?s3://bucket/prefix"):
        open_documents(url)


@pytest.mark.parametrize(
    "error",
    [
        DeltaError(
            "Failed to parse parquet: External: Generic LocalFileSystem error: Unable to copy data to file: "
            "No space left on device (os error 28)"
        ),
        DeltaError("Generic LocalFileSystem error: Disk quota exceeded (os error 122)"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_folder_without_room_is_waited_for_and_says_so(error: Exception, tmp_path: Path) -> None:
    away = pytest.raises(StoreUnavailableError, match=r"has no room \(writing events/sales\): .*Make room there")
    with away, Location.of(str(tmp_path)).reached("writing events/sales"):
        raise error
