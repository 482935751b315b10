"""What a flow says while it runs, one line per interesting thing, for people and for collectors of logs.

Lives here: how lines look and where they go. What is interesting is said where it happens: `begin`, `retry`,
`dead_letters`, `late`, `loss`, `stop`. Invariants: nothing is said unless it was asked for (`--log-format`), but what
has a `warning`, a sentence that everybody should read; lines go to standard error; none holds a secret or bytes of an
event, which stay in `dead_letters`.
"""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args

import structlog

Format = Literal["json", "text"]
FORMATS: tuple[str, ...] = get_args(Format)
POSITIONS_MAX = 200
"""Partitions that `begin` names one by one."""

WARNING = "warning"
"""The key of a sentence that is all that is said where no format was asked for."""
LOG: Any = structlog.get_logger()


def configure(log_format: str | None, worker: int | None = None) -> None:
    """Say things in a format from now on, as a worker of a flow or as the flow; `None`: say warnings alone."""
    looks: dict[str | None, Any] = {
        "json": structlog.processors.JSONRenderer(),
        "text": structlog.dev.ConsoleRenderer(colors=False),
        None: _warning,
    }

    def with_worker(logger: Any, name: str, event: dict[str, Any]) -> dict[str, Any]:
        return event if worker is None else event | {"worker": worker}

    def without_warning(logger: Any, name: str, event: dict[str, Any]) -> dict[str, Any]:
        return event if log_format is None else {name: value for name, value in event.items() if name != WARNING}

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            with_worker,
            without_warning,
            looks[log_format],
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.__stderr__),
        cache_logger_on_first_use=False,
    )


def _warning(logger: Any, name: str, event: dict[str, Any]) -> str:
    if WARNING not in event:
        raise structlog.DropEvent
    return f"warning: {event[WARNING]}"


configure(None)
