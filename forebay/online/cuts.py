"""The cuts of a windowed view's slots, as its publications left them in the online store."""

from __future__ import annotations

from typing import Any

import redis

from forebay.core.identity import SLOTS
from forebay.language.view import WindowedView
from forebay.online.connection import translated
from forebay.online.keys import Keys
from forebay.online.progress import Cut


def read_cuts(client: redis.Redis, namespace: str, view: WindowedView) -> list[Cut]:
    """The cut of each slot, in their order; `Cut()` where nothing was published."""
    with translated(client):
        blobs: list[Any] = client.mget(Keys(namespace).slots("cut", view.key, range(SLOTS)))
    return [Cut.decode(blob) for blob in blobs]


def read_cut(client: redis.Redis, namespace: str, view: WindowedView) -> int:
    """The cut of the last finished publication; NO_CUT where there was none."""
    return max(cut.cut_us for cut in read_cuts(client, namespace, view))
