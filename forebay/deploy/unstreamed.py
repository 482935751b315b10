"""Views that are deployed and that no stream has taken up yet: a running flow keeps the definitions that it began with.

    apply ──▶ UNAVAILABLE ──▶ the stream is started again, or `--replay` ──▶ filled with what is archived ──▶ it answers

Where a source has archived events, a new view of it would give defaults, or what batch has published, as if no event
had come; and one that was removed and comes back would answer with what it had. So it is marked, by the targets that a
filling has (`forebay.online.progress`). Lives here: marking what is new, and telling what a running flow does not know.
Invariants: nothing is written while a flow streams the view, and no progress moves back.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

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


NOBODYS = {"": 1}
"""The target of a new view before anything is archived, beside a flow that will not stream it: no partition has this
name, so it is reached by nobody, and replaced by the flow that begins next or by a filling."""


def mark_unstreamed(client: redis.Redis, namespace: str, store: OfflineStore, views: Iterable[AnyView]) -> list[str]:
    """Let new views answer UNAVAILABLE until they have what is archived now, or while nothing is, until a running flow
    that does not know them is replaced; the keys of those that have to wait.

    A view that a flow streams, which began when it was deployed before, waits for nothing.
    """
    keys, signs, now_us = Keys.of(client, namespace), Signs(client, namespace), time.time_ns() // 1000

    def waits(view: AnyView) -> bool:
        if not isinstance(view, WindowedView) or view.source.stream is None:
            return False
        found = signs.read(view.source.name)
        targets = _archived(store, view) or (NOBODYS if is_unknown(view, found, now_us) else {})
        return bool(targets) and not _is_streamed(view, found, now_us) and _mark(client, keys, view.key, targets)

    return [view.key for view in views if waits(view)]


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


def _is_streamed(view: WindowedView, signs: Sequence[Sign], now_us: int) -> bool:
    return any(view.key in sign.views for sign in running(signs, now_us))


def _archived(store: OfflineStore, view: WindowedView) -> dict[str, int]:
    """How far the stream of a view's source is archived, by partition."""
    positions = store.archive(view.source).positions()
    return {name: one.next_offset for name, one in positions.items() if one.next_offset}


def _mark(client: redis.Redis, keys: Keys, view: str, targets: Mapping[str, int]) -> bool:
    """Let each slot wait for what it lacks; whether some have to. On a cluster, where no transaction holds them all,
    one after another.
    """
    waiting = False

    def aim(names: Sequence[str], transaction: Any) -> None:
        nonlocal waiting
        blobs: list[Any] = transaction.mget(names)
        known = [Progress() if blob is None else Progress.decode(blob) for blob in blobs]
        aimed = [progress.aimed(targets) for progress in known]
        waiting |= any(progress.targets for progress in aimed)
        transaction.multi()
        for name, old, new in zip(names, known, aimed, strict=True):
            if new != old:
                transaction.set(name, new.encode())

    names = list(dict.fromkeys(keys.progress(view, range(SLOTS))))
    with translated(client):
        for some in [[name] for name in names] if isinstance(client, Cluster) else [names]:
            client.transaction(partial(aim, some), *some)
    return waiting
