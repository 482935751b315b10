"""Where the offline store is: a folder or `s3://bucket/prefix`, the options to reach it, and one clear error if it
cannot be reached.

S3 takes the usual `AWS_*` variables; `AWS_ENDPOINT_URL` points at another S3, over plain http if it says so. Commits
are conditional PUTs (`etag`), so that two writers never share a version. A message never holds a secret.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forebay.errors import ForebayError, StoreError, StoreUnavailableError
from forebay.offline.documents import Documents, open_documents
from forebay.offline.ownership import Owner

CONNECT_TIMEOUT, REQUEST_TIMEOUT, POOL_IDLE_TIMEOUT = "3s", "25s", "15s"
"""Less than a flow's patience, so that what hangs is tried again, on a fresh connection (docs/adr/0284)."""
RETRIES_MAX, RETRY_TIMEOUT = "3", "10s"
PROBE = ".forebay-probe"
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
SECRET_LENGTH_MIN = 4
"""What is shorter is no secret, but might be part of any word."""
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m|↳")
_UNREACHABLE = re.compile(
    r"error sending request|connect|timed? ?out|dns|retries|NoSuchBucket|does not exist or you don't have access"
    r"|Access ?Denied|Forbidden|403|InvalidAccessKeyId|SignatureDoesNotMatch|Permission denied|Could not create local",
    re.IGNORECASE,
)
_URL = re.compile(r"\b(?:https?|s3)://\S+")
SHOWN_MAX = 400
"""Characters of an error of the storage that are shown."""
_DATA = re.compile(r"\.parquet\b")
_FULL = re.compile(r"No space left|quota exceeded|os error (28|122)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Location:
    """The root of the offline store; `owner` sees to it that it is of one namespace."""

    url: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    owner: Owner = field(default_factory=Owner, repr=False, compare=False)

    @classmethod
    def of(cls, url: str, environ: Mapping[str, str] = os.environ, *, namespace: str | None = None) -> Location:
        """The location of `FOREBAY_OFFLINE_URL`, for a namespace (`None`: whosever it is)."""
        owner = Owner(url, namespace)
        if not url.startswith("s3://"):
            return cls(str(Path(url.removeprefix("file://")).expanduser().absolute()), owner=owner)
        options = {name: value for name, value in environ.items() if name.startswith("AWS_")}
        endpoint = options.get("AWS_ENDPOINT_URL_S3") or options.get("AWS_ENDPOINT_URL") or ""
        if endpoint:
            options["AWS_ENDPOINT_URL"] = endpoint
        if endpoint.startswith("http://"):
            options["AWS_ALLOW_HTTP"] = "true"
        options.setdefault("AWS_REGION", options.get("AWS_DEFAULT_REGION", "us-east-1"))
        options |= {"aws_conditional_put": "etag", "connect_timeout": CONNECT_TIMEOUT, "timeout": REQUEST_TIMEOUT}
        options |= {"pool_idle_timeout": POOL_IDLE_TIMEOUT, "max_retries": RETRIES_MAX, "retry_timeout": RETRY_TIMEOUT}
        return cls(url.rstrip("/"), options, owner)

    @functools.cached_property
    def documents(self) -> Documents:
        """Its small files, by name."""
        return open_documents(self.url)

    def at(self, path: str) -> str:
        """The URL of something in it."""
        return f"{self.url}/{path}"

    def files(self, path: str = "") -> Any:
        """The files under a path, as a `pyarrow.fs.FileSystem`."""
        import pyarrow.fs
        from deltalake.fs import DeltaStorageHandler

        root = self.at(path) if path else self.url
        return pyarrow.fs.PyFileSystem(DeltaStorageHandler(root, dict(self.options)))

    @contextmanager
    def reached(self, doing: str) -> Iterator[None]:
        """Errors of the storage as one clear error: what was being done, where, and what to check."""
        import pyarrow as pa
        from deltalake.exceptions import DeltaError

        try:
            yield
        except ForebayError:
            raise
        except (DeltaError, OSError, pa.ArrowInvalid) as error:
            whole = self._plain(error)
            reason, said = _shown(whole), _URL.sub("", whole)
            if isinstance(error, pa.ArrowInvalid | FileNotFoundError) and _DATA.search(whole):
                raise StoreError(
                    f"A file of the offline store {self.url!r} is damaged, or gone ({doing}): {reason.rstrip('.')}. "
                    "Restore it from a copy; of tiles/ and features/ its date may be materialized anew instead"
                ) from error
            if _FULL.search(said):
                raise StoreUnavailableError(
                    f"The offline store {self.url!r} has no room ({doing}): {reason}. Make room there; nothing of this "
                    "counts"
                ) from None
            if isinstance(error, OSError) or _UNREACHABLE.search(said):
                raise StoreUnavailableError(
                    f"The offline store {self.url!r} does not answer ({doing}): {reason}. "
                    f"Check FOREBAY_OFFLINE_URL{' and the AWS_* variables' if self.options else ''}"
                ) from None
            raise StoreError(f"The offline store {self.url!r} failed ({doing}): {reason}") from error

    def _plain(self, error: Exception) -> str:
        """The message of an error in one line, without secrets."""
        text = " ".join(_ESCAPES.sub(" ", str(error)).split())
        for name in _SECRETS:
            if len(self.options.get(name, "")) >= SECRET_LENGTH_MIN:
                text = text.replace(self.options[name], "…")
        return text


def _shown(text: str) -> str:
    """Where a long message begins, and its end, which says why."""
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX // 2]} … {text[-SHOWN_MAX // 2 :]}"


def check_reachable(location: Location) -> None:
    """Raise `StoreUnavailableError` unless a file can be written, read and removed."""
    from deltalake._internal import DeltaFileSystemHandler  # the streams of the public handler take no bytes

    if not location.options:
        with location.reached("making the folder"):
            Path(location.url).mkdir(parents=True, exist_ok=True)
    with location.reached("writing and reading a file"):
        files: Any = DeltaFileSystemHandler(location.url, dict(location.options))  # its stub lacks close
        stream = files.open_output_stream(PROBE)
        stream.write(PROBE.encode())
        stream.close()
        found = bytes(files.open_input_file(PROBE).read(None))
        files.delete_file(PROBE)
    if found != PROBE.encode():
        raise StoreUnavailableError(f"The offline store {location.url!r} does not give back what was written to it")
