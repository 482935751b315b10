"""Small files on the offline store: written once, under a name that nobody else has.

A document is created and never changed, so that two writers of one name are told apart by the store itself: the second
`create` returns False and writes nothing. A reader sees a whole document or none. On a folder that is a hard link to a
finished file, on S3 a PUT with `If-None-Match: *`. Meant for manifests: nothing here is for data.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from forebay.errors import ConfigError, StoreUnavailableError

DOCUMENT_BYTES_MAX = 64 * 2**20
"""A manifest of ten thousand views is some 20 MB."""
ATTEMPTS_MAX, CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 2, 3, 20


class Documents(Protocol):
    """Documents by name; names are paths such as `registry/manifest-000001.json`."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a document; False, and nothing is written, where the name is taken."""
        ...

    def read(self, name: str) -> bytes | None:
        """The bytes of a document, `None` where there is none."""
        ...

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """The bytes of some documents, as `read` says."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; each begins with the folder."""
        ...


def open_documents(offline_url: str) -> Documents:
    """The documents of an offline store: a folder, or `s3://bucket/prefix` with the usual AWS_* variables."""
    if offline_url.startswith("s3://"):
        return S3Documents(offline_url)
    if "://" in offline_url and not offline_url.startswith("file://"):
        raise ConfigError(
            f"FOREBAY_OFFLINE_URL begins with {offline_url.partition('://')[0]!r}; "
            "expected a folder or s3://bucket/prefix"
        )
    return FolderDocuments(Path(offline_url.removeprefix("file://")).expanduser().absolute())


class FolderDocuments:
    """Documents in a local folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, name: str, data: bytes) -> bool:
        """Write a temporary file beside it, then link it to its name."""
        _check_size(name, data)
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        finally:
            Path(temporary).unlink()
        return True

    def read(self, name: str) -> bytes | None:
        """The bytes of a file."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """The bytes of some files."""
        return [self.read(name) for name in names]

    def names(self, folder: str) -> list[str]:
        """The files of a folder, without those being written."""
        path = self._folder / folder
        if not path.is_dir():
            return []
        return sorted(f"{folder}/{entry.name}" for entry in path.iterdir() if not entry.name.startswith("."))


class S3Documents:
    """Documents under a prefix of a bucket."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._prefix = url.removeprefix("s3://").strip("/")
        if not self._prefix:
            raise ConfigError(f"FOREBAY_OFFLINE_URL={url!r} names no bucket; expected s3://bucket/prefix")
        self._files = self._connect()

    def create(self, name: str, data: bytes) -> bool:
        """One PUT that fails where the name is taken."""
        _check_size(name, data)
        try:
            self._files.pipe_file(f"{self._prefix}/{name}", data, mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            if _says_taken(error):
                return False
            raise self._unavailable(error) from error
        return True

    def read(self, name: str) -> bytes | None:
        """One GET."""
        try:
            data: bytes = self._files.cat_file(f"{self._prefix}/{name}")
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._unavailable(error) from error
        return data

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """A GET of each, all at once."""
        paths = [f"{self._prefix}/{name}" for name in names]
        try:
            found: dict[str, Any] = self._files.cat(paths, on_error="return") if paths else {}
        except Exception as error:
            raise self._unavailable(error) from error
        return [self._told(found[path]) for path in paths]

    def _told(self, found: Any) -> bytes | None:
        """The bytes, or what came instead."""
        if isinstance(found, FileNotFoundError):
            return None
        if isinstance(found, Exception):
            raise self._unavailable(found) from found
        return bytes(found)

    def names(self, folder: str) -> list[str]:
        """One LIST."""
        try:
            paths: list[str] = self._files.ls(f"{self._prefix}/{folder}", detail=False, refresh=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._unavailable(error) from error
        return sorted(path.removeprefix(f"{self._prefix}/") for path in paths)

    def _connect(self) -> Any:
        try:
            import s3fs
        except ImportError:
            raise ConfigError(
                f"FOREBAY_OFFLINE_URL={self._url!r} needs s3fs; install it with: pip install 'forebay[offline]'"
            ) from None
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        files = s3fs.S3FileSystem(
            use_listings_cache=False,
            skip_instance_cache=True,
            client_kwargs={"region_name": region},
            config_kwargs={
                "retries": {"total_max_attempts": ATTEMPTS_MAX},
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                "s3": {"addressing_style": "path"} if endpoint else {},
            },
        )
        files.retries = 1  # botocore tries again; five times as often, one that hangs would be silent for minutes
        return files

    def _unavailable(self, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"The offline store {self._url!r} does not answer ({type(error).__name__}: {error}); "
            "check FOREBAY_OFFLINE_URL and the AWS_* variables"
        )


def _says_taken(error: BaseException | None) -> bool:
    """Whether S3 refused a conditional PUT: 412, or 409 while another one is under way."""
    while error is not None:
        status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status in (409, 412):
            return True
        error = error.__cause__ or error.__context__
    return False


def _check_size(name: str, data: bytes) -> None:
    if len(data) > DOCUMENT_BYTES_MAX:
        raise ConfigError(f"Document {name!r} has {len(data)} bytes; expected at most {DOCUMENT_BYTES_MAX}")
