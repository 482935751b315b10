"""Views that are deployed and that no stream has taken up yet: a running flow keeps the definitions that it began with.

    apply ──▶ UNAVAILABLE ──▶ the stream is started again, or `--replay` ──▶ filled with what is archived ──▶ it answers

Where a source has archived events, a new view of it would give defaults, or what batch has published, as if no event
had come. So it is marked, by the targets that a filling has (`forebay.online.progress`). Lives here: marking what is
new, and telling what a running flow does not know. Invariant: nothing is written where a stream has written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import redis

from forebay.core.identity import SLOTS
from forebay.instants import SECOND_US
from forebay.language.view import AnyView, WindowedView
from forebay.offline.tables import OfflineStore
from forebay.online.cluster import Cluster
from forebay.online.connection import translated
from forebay.online.keys import Keys
from forebay.online.progress import Progress
from forebay.online.signs import Sign, Signs

SILENT_AFTER_US = 15 * SECOND_US
"""Several signs missing in a row: that flow is dead."""
UNSTREAMED = (
    "the running flow began without it and does not stream it; once it is applied, start the flow again, or fill the "
    "view beforehand: forebay stream --replay"
)
"""What is said of such a view, by whoever says it."""


def mark_unstreamed(client: redis.Redis, namespace: str, store: OfflineStore, views: Iterable[AnyView]) -> list[str]:
    """Let new views answer UNAVAILABLE until they have what is archived now; the keys of those that have to wait."""
    waiting = []
    for view in views:
        targets = _archived(store, view)
        if targets:
            _mark(client, Keys.of(client, namespace), view.key, Progress(0, {}, targets).encode())
            waiting.append(view.key)
    return waiting


def unknown_views(client: redis.Redis, namespace: str, views: Iterable[AnyView], now_us: int) -> list[str]:
    """The keys of those views that the running flow of their source does not stream."""
    signs, known = Signs(client, namespace), dict[str, list[Sign]]()
    streamed = [view for view in views if isinstance(view, WindowedView) and view.source.stream is not None]
    for name in {view.source.name for view in streamed}:
        known[name] = signs.read(name)
    return [view.key for view in streamed if is_unknown(view, known[view.source.name], now_us)]


def is_unknown(view: WindowedView, signs: Sequence[Sign], now_us: int) -> bool:
    """Whether a flow with these signs runs and does not stream a view."""
    alive = running(signs, now_us)
    return bool(alive) and not any(view.key in sign.views for sign in alive)


def running(signs: Sequence[Sign], now_us: int) -> list[Sign]:
    """The signs of processes that run."""
    return [sign for sign in signs if sign.ended_us is None and now_us - sign.seen_us <= SILENT_AFTER_US]


def _archived(store: OfflineStore, view: AnyView) -> dict[str, int]:
    """How far the stream of a view's source is archived, by partition."""
    if not isinstance(view, WindowedView) or view.source.stream is None:
        return {}
    positions = store.archive(view.source).positions()
    return {name: one.next_offset for name, one in positions.items() if one.next_offset}


def _mark(client: redis.Redis, keys: Keys, view: str, blob: bytes) -> None:
    """All slots at once; on a cluster, where no transaction holds them, one after another."""
    at_once = not isinstance(client, Cluster)
    with translated(client), client.pipeline(transaction=at_once) as transaction:
        for name in dict.fromkeys(keys.progress(view, range(SLOTS))):
            transaction.set(name, blob, nx=True)
        transaction.execute()
