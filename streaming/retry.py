"""How long a store that is away is waited for: one policy for every sink.

Lives here: the policy. It waits with growing, jittered pauses and gives up after a bound; then the error of the last
try ends the flow, and the next flow resumes from what the stores hold. Only a store that cannot be reached is waited
for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from forebay.errors import StoreUnavailableError

GIVE_UP_AFTER_S = 60.0
"""A restart of Redis or a hiccup of S3 passes within this; longer is for a person to look at."""
WAIT_FIRST_S = 0.05
WAIT_MAX_S = 2.0

T = TypeVar("T")


def untold(error: BaseException) -> None:
    """Nobody wants to know why a call is tried again."""


@dataclass(frozen=True)
class Patience:
    """Tries a call until the store can be reached, for at most `give_up_after_s`."""

    give_up_after_s: float = GIVE_UP_AFTER_S
    retried: Callable[[BaseException], None] = untold
    """Told why a call is tried again."""

    def __call__(self, call: Callable[[], T]) -> T:
        """What the call returns; after the bound, the error of its last try."""
        retrying = Retrying(
            reraise=True,
            retry=retry_if_exception_type(StoreUnavailableError),
            stop=stop_after_delay(self.give_up_after_s),
            wait=wait_exponential_jitter(multiplier=WAIT_FIRST_S, max=WAIT_MAX_S, jitter=WAIT_FIRST_S),
            before_sleep=self._tell,
        )
        return retrying(call)

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None:
            self.retried(error)
