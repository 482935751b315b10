"""What is written to a Delta table at once: rows, and the positions that they bring it to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deltalake import CommitProperties, Transaction

Position = Callable[[str], "int | None"]
"""Asks for the version that an app_id was brought to; `None` if it never was."""


@dataclass(frozen=True)
class Commit:
    """Rows (a table, or a reader that is read once) and the positions that they bring the table to."""

    rows: Any
    positions: Mapping[str, int] = field(default_factory=dict)

    @property
    def properties(self) -> CommitProperties:
        """As deltalake wants it."""
        return CommitProperties(app_transactions=[Transaction(app, to) for app, to in self.positions.items()])
