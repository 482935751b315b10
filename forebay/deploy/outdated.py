"""Sources that a running flow knows otherwise than they are deployed: it judges by the definitions that it began with.

    history_start = 2024 ──▶ a flow begins ──▶ 2023 is applied ──▶ what is of 2023 it refuses, until it is restarted

Lives here: a digest of what decides whether something is an event of a source, which a flow's sign of life carries, and
comparing it with what is deployed. Of a flow whose sign has none, nothing is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import redis

from forebay.deploy.unstreamed import running
from forebay.language.definitions import Definitions
from forebay.language.source import EventSource
from forebay.online.signs import Sign, Signs

DIGEST_LENGTH = 16
OUTDATED = (
    "the running flow began with other definitions of it and judges events by those; once they are applied, start the "
    "flow again"
)
"""What is said of such a source, by whoever says it."""


def digest(definitions: Definitions, source: EventSource) -> str:
    """16 hexadecimal digits that change where something changes by which events of a source are judged."""
    judged_by = (
        [(name, str(kind)) for name, kind in source.schema.items()],
        (source.timestamp, source.event_id),
        (source.history_start_us, source.max_skew_us, source.lateness_us, source.dedupe_us),
        sorted(source.renamed.items()),
        sorted(definitions.limits(source).items()),
    )
    return hashlib.sha256(msgspec.json.encode(judged_by)).hexdigest()[:DIGEST_LENGTH]


def is_outdated(definitions: Definitions, source: EventSource, signs: Sequence[Sign], now_us: int) -> bool:
    """Whether a flow with these signs runs and judges events of a source by other definitions."""
    return any(sign.judges_by not in ("", digest(definitions, source)) for sign in running(signs, now_us))


def outdated_sources(client: redis.Redis, namespace: str, definitions: Definitions, now_us: int) -> list[str]:
    """The names of those sources that their running flow judges by other definitions."""
    signs = Signs(client, namespace)
    streamed = [one for one in definitions.sources.values() if isinstance(one, EventSource) and one.stream is not None]
    return [one.name for one in streamed if is_outdated(definitions, one, signs.read(one.name), now_us)]
