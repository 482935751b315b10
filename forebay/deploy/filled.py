"""Whether a view has anything in the online store: what a flip looks at before models are sent there.

May live here: looking at what stands beside the tiles (progress, cut, published entities). Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable

import redis

from forebay.core.codec import NO_CUT
from forebay.core.identity import SLOTS
from forebay.errors import RequestError
from forebay.language.definitions import Definitions
from forebay.language.view import AnyView, BatchView
from forebay.online.connection import translated
from forebay.online.keys import Keys
from forebay.online.slot_state import read_cut, read_progress


def unfilled(client: redis.Redis, namespace: str, views: Iterable[AnyView]) -> list[str]:
    """The keys of the views of which nothing was ever streamed or published."""
    return [view.key for view in views if not _filled(client, namespace, view)]


def check_filled(client: redis.Redis, namespace: str, definitions: Definitions, service: str) -> None:
    """Raise `RequestError` where a view of a service has nothing online: a model would get defaults alone."""
    views = definitions.service(service).views()
    empty = unfilled(client, namespace, views.values())
    if empty:
        raise RequestError(
            f"Service {service!r} cannot become active: nothing of {', '.join(empty)} is in the online store, so its "
            "values would be defaults. Backfill and publish it, restart the stream, compare; or pass --anyway"
        )


def _filled(client: redis.Redis, namespace: str, view: AnyView) -> bool:
    keys = Keys(namespace)
    with translated(client):
        if client.exists(*keys.slots("published", view.key, range(SLOTS))):
            return True
    if isinstance(view, BatchView):
        return False
    streamed = any(slot.partitions for slot in read_progress(client, namespace, view))
    return streamed or read_cut(client, namespace, view) != NO_CUT
