"""The deployment that assets work on: settings, definitions and stores, as the environment says.

Stores are opened within a run and closed with it; loading the definitions opens nothing, so that the UI and the
daemon stay light.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from forebay.language.definitions import Definitions
from forebay.language.learned import as_deployed, statistics_of
from forebay.language.view import AnyView
from forebay.settings import Settings

if TYPE_CHECKING:
    import redis

    from forebay.offline.tables import OfflineStore


def declared() -> Definitions:
    """The definitions in code, whose functions can be run."""
    return Definitions.load(Settings.from_env().definitions)


def offline() -> OfflineStore:
    """The offline store."""
    from forebay.offline.tables import OfflineStore

    return OfflineStore(Settings.from_env())


def publish_rate() -> int:
    """How many values a publication may write in a second."""
    return Settings.from_env().publish_rate


def with_deployed_defaults(view: AnyView) -> AnyView:
    """A view of the code with what was learned of its statistical defaults; where it has none nothing is asked."""
    if not statistics_of(view):
        return view
    from forebay.deploy.registry import Registry

    with online() as (client, _):
        return as_deployed(view, Registry.open(Settings.from_env(), client).current())


@contextmanager
def online() -> Iterator[tuple[redis.Redis, str]]:
    """The online store and the namespace in it."""
    from forebay.online.connection import connect_online

    settings = Settings.from_env()
    client = connect_online(settings)
    try:
        yield client, settings.namespace
    finally:
        client.close()
