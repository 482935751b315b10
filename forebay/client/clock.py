"""The two clocks of history: what a row at T may see.

as_of      the law over all events that there are now; of a batch view the newest row by then, whenever created
as_known   only what had arrived or been computed by T: `arrived_at` ≤ T, `created_timestamp` ≤ T
"""

from __future__ import annotations

from typing import Literal, get_args

from forebay.errors import RequestError, suggestion

Clock = Literal["as_of", "as_known"]
CLOCKS: tuple[str, ...] = get_args(Clock)


def is_known(clock: str) -> bool:
    """Whether it is `as_known`. Raises `RequestError` for what is no clock."""
    if clock not in CLOCKS:
        raise RequestError(f"clock={clock!r}; expected one of {', '.join(CLOCKS)}. {suggestion(str(clock), CLOCKS)}")
    return clock == "as_known"
