"""How long a store that is away is waited for: one policy, for the beginning of a flow, its sinks and its logs.

Lives here: the policy. `Patience` waits with growing, jittered pauses and gives up after a bound; then the error of the
last try ends the flow, and the next flow resumes from what the stores hold. A reader that has other logs to read must
not wait: `Forbearance` gives nothing meanwhile, up to the same bound. Only a store that cannot be reached is waited
for. While the keys of a slot of a cluster are on their way, which somebody sees to and which may take minutes, the
bound does not run: the flow waits, and with it its readers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_any,
    wait_exponential_jitter,
)

from forebay.errors import ForebayError, StoreMovingError, StoreUnavailableError

GIVE_UP_AFTER_S = 60.0
"""A restart of Redis or a hiccup of S3 passes within this; longer is for a person to look at."""
WAIT_FIRST_S = 0.05
WAIT_MAX_S = 2.0
MOVING_MAX_S = 3600.0
"""The keys of a slot are moved within this, or somebody has left it half way."""
AGAIN_AFTER_S = 0.5
"""The pause between two tries of a log; nobody waits in it."""

T = TypeVar("T")


class GivenUpError(ForebayError):
    """Nobody wants any more what was about to be done: a signal came before the flow began."""


def untold(error: BaseException) -> None:
    """Nobody wants to know why a call is tried again."""


def never() -> bool:
    """Nothing ends the waiting before its bound."""
    return False


@dataclass(frozen=True)
class Patience:
    """Tries a call until the store can be reached, for at most `give_up_after_s`."""

    give_up_after_s: float = GIVE_UP_AFTER_S
    retried: Callable[[BaseException], None] = untold
    """Told why a call is tried again."""
    enough: Callable[[], bool] = never
    """Whether nobody wants to wait any more."""
    again_after_s: float = AGAIN_AFTER_S

    def __call__(self, call: Callable[[], T]) -> T:
        """What the call returns; after the bound, the error of its last try."""
        began_s = time.monotonic()
        try:
            return call()
        except StoreUnavailableError as error:
            failed = error
        return self._retrying(time.monotonic() - began_s)(_Again(call, failed))

    def check(self) -> None:
        """Raise `GivenUpError` where nobody wants to wait any more: before a step that takes long, or takes something
        from somebody.
        """
        if self.enough():
            raise GivenUpError("The flow was told to end before it had begun")

    def _retrying(self, tried_s: float) -> Retrying:
        """What holds of one call, whose first try has failed: nothing of it is kept for the next, or for another
        thread's. Where all is well it is not made: that, and its call, cost some thirtieth of a small commit.
        """
        return Retrying(
            reraise=True,
            retry=retry_if_exception_type(StoreUnavailableError),
            stop=stop_any(_Bound(self.give_up_after_s, tried_s), lambda state: self.enough()),
            wait=wait_exponential_jitter(multiplier=WAIT_FIRST_S, max=WAIT_MAX_S, jitter=WAIT_FIRST_S),
            before_sleep=self._tell,
        )

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None:
            self.retried(error)


@dataclass
class _Again(Generic[T]):
    """A call whose first try has failed already."""

    call: Callable[[], T]
    failed: BaseException | None

    def __call__(self) -> T:
        if self.failed is not None:
            failed, self.failed = self.failed, None
            raise failed
        return self.call()


@dataclass
class _Bound:
    """Ends the waiting of one call once a store has been away for so long; what is on its way is not away."""

    give_up_after_s: float
    tried_s: float
    """What the first try took, before the state began to count."""
    _since_s: float = 0.0

    def __call__(self, state: RetryCallState) -> bool:
        now_s = self.tried_s + (state.seconds_since_start or 0.0)
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, StoreMovingError) and now_s < MOVING_MAX_S:
            self._since_s = now_s
            return False
        return now_s - self._since_s >= self.give_up_after_s


class Forbearance:
    """Bears with a log whose store is away: a call gives nothing meanwhile, and its error after the bound."""

    def __init__(self, patience: Patience, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock_s = patience, clock_s
        self._since_s: float | None = None
        self._again_s = 0.0

    @property
    def away(self) -> bool:
        """Whether the last call gave nothing because the store could not be reached."""
        return self._since_s is not None

    def __call__(self, call: Callable[[], Sequence[T]]) -> Sequence[T]:
        """What the call gives; nothing while its store is away. The call must lose nothing when it raises."""
        if self.away and self._clock_s() < self._again_s:
            return ()
        try:
            found = call()
        except StoreUnavailableError as error:
            self._bear(error)
            return ()
        self._since_s = None
        return found

    def _bear(self, error: StoreUnavailableError) -> None:
        now_s = self._clock_s()
        since_s = self._since_s = now_s if self._since_s is None else self._since_s
        if now_s - since_s >= self._patience.give_up_after_s:
            raise error
        self._again_s = now_s + self._patience.again_after_s
        self._patience.retried(error)
