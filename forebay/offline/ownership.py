"""Whose an offline store is: the namespace that it was begun in, so that two never mix in one folder or bucket.

    registry/namespace     the name, written once, by whoever first applies definitions or makes a table

Paths of tables hold no namespace: one offline store belongs to one. Whoever opens a table, or the registry, under
another one is refused before anything is read or written; a store without the document is nobody's yet.
"""

from __future__ import annotations

from forebay.errors import ConfigError
from forebay.offline.documents import open_documents

NAME = "registry/namespace"


class Owner:
    """The namespace in whose name an offline store is opened; the store is looked at once. `None` may open any."""

    def __init__(self, offline_url: str = "", namespace: str | None = None) -> None:
        self._url, self._namespace = offline_url, namespace
        self._known = namespace is None

    def check(self) -> None:
        """Raise `ConfigError` where the store is another namespace's."""
        if not self._known:
            found = open_documents(self._url).read(NAME)
            self._known = self._compare(found)

    def claim(self) -> None:
        """Make the store this namespace's, where it is nobody's. Raises `ConfigError` where it is another's."""
        self.check()
        if not self._known and self._namespace is not None:
            documents = open_documents(self._url)
            documents.create(NAME, self._namespace.encode())
            self._known = self._compare(documents.read(NAME))

    def _compare(self, found: bytes | None) -> bool:
        if found is not None and found.decode() != self._namespace:
            raise ConfigError(
                f"The offline store {self._url!r} belongs to namespace {found.decode()!r}, and FOREBAY_NAMESPACE is "
                f"{self._namespace!r}: their tables would mix. Give this namespace a FOREBAY_OFFLINE_URL of its own"
            )
        return found is not None
