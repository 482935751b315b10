"""What stands beside a view's tiles in each slot: how far its stream is, and the cut of its last publication."""

from __future__ import annotations

from typing import Any

import redis

from forebay.core.identity import SLOTS
from forebay.language.view import AnyView
from forebay.online.connection import translated
from forebay.online.keys import Keys
from forebay.online.progress import Cut, Progress


def read_progress(client: redis.Redis, namespace: str, view: AnyView) -> list[Progress]:
    """How far the stream of each slot is, in their order; `Progress()` where nothing was applied."""
    with translated(client):
        blobs: list[Any] = client.mget(Keys.of(client, namespace).progress(view.key, range(SLOTS)))
    return [Progress() if blob is None else Progress.decode(blob) for blob in blobs]


def read_cuts(client: redis.Redis, namespace: str, view: AnyView) -> list[Cut]:
    """The cut of each slot, in their order; `Cut()` where nothing was published."""
    with translated(client):
        blobs: list[Any] = client.mget(Keys(namespace).slots("cut", view.key, range(SLOTS)))
    return [Cut.decode(blob) for blob in blobs]


def read_cut(client: redis.Redis, namespace: str, view: AnyView) -> int:
    """The cut of the last finished publication; NO_CUT where there was none."""
    return max(cut.cut_us for cut in read_cuts(client, namespace, view))
