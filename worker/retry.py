"""When a failed attempt is tried again: tenacity's objects, judged by the attempt in the table.

tenacity keeps its count in memory; ours stands in the row and survives the worker. So each
decision builds a fresh `RetryCallState` from the row and asks the policy's three objects.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)
from tenacity.retry import retry_base
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from worker.errors import DuerowError, UsageError
from worker.outcome import LONGEST_DELAY


class wait_spread(wait_base):  # noqa: N801 (named as tenacity names its waits)
    """Another wait, times a random factor between 1 - `by` and 1 + `by`.

    Rows that failed together do not come back together, however long the wait has become.
    """

    def __init__(self, wait: wait_base, by: float = 0.25) -> None:
        self.wait = wait
        self.by = by

    def __call__(self, retry_state: RetryCallState) -> float:
        return self.wait(retry_state) * random.uniform(1 - self.by, 1 + self.by)


class PermanentError(DuerowError):
    """Raised by a handler: trying again cannot help. Any policy ends the row as dead."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What follows a failed attempt.

    wait: tenacity `wait_*`; seconds until the next attempt (default: 2 s, doubling, at most an
        hour, spread by a quarter).
    stop: tenacity `stop_*`; when to give up (default: after 12 attempts, about an hour and a half).
        A row's own `max_attempts` goes before it. Stops that go by time count from the row's
        creation.
    retry_if: tenacity `retry_if_*`; which errors are worth another attempt (default: all).
    permanent: error classes that are never retried, whatever `retry_if` says.
    """

    wait: wait_base = field(
        default_factory=lambda: wait_spread(
            wait_exponential(multiplier=1, exp_base=2, min=2, max=3600)
        )
    )
    stop: stop_base = field(default_factory=lambda: stop_after_attempt(12))
    retry_if: retry_base = field(default_factory=lambda: retry_if_exception_type(BaseException))
    permanent: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        for name in ("wait", "stop", "retry_if"):
            if not callable(getattr(self, name)):
                raise UsageError(
                    f"RetryPolicy({name}=...) is not one of tenacity's objects",
                    why=f"it is a {type(getattr(self, name)).__name__}",
                    hint=f"for example {_EXAMPLES[name]}",
                )
        try:
            isinstance(None, self.permanent)
        except TypeError as error:
            raise UsageError("RetryPolicy(permanent=...) takes a tuple of error classes") from error

    def retryable(self, error: BaseException, attempt: int) -> bool:
        """Whether another attempt can help at all."""
        if isinstance(error, (PermanentError, self.permanent)):
            return False
        return bool(self.retry_if(_state(attempt, 0.0, error)))

    def exhausted(
        self, attempt: int, age: float, max_attempts: int | None, delay: float = 0.0
    ) -> bool:
        """Whether `attempt` was the last one. `age`: seconds since the row was created; `delay`:
        seconds that would pass before the next."""
        if max_attempts is not None:
            return attempt >= max_attempts
        return bool(self.stop(_state(attempt, age, None, delay)))

    def delay(self, attempt: int, error: BaseException | None = None) -> float:
        """Seconds until the attempt after `attempt`, at most ten years."""
        seconds = float(self.wait(_state(attempt, 0.0, error)))
        if math.isnan(seconds):
            raise UsageError("the policy's wait is not a number")
        return min(max(0.0, seconds), LONGEST_DELAY)


_EXAMPLES = {
    "wait": "tenacity.wait_fixed(5)",
    "stop": "tenacity.stop_after_attempt(5)",
    "retry_if": "tenacity.retry_if_exception_type(OSError)",
}
_NOBODY = Retrying()


def _state(
    attempt: int, age: float, error: BaseException | None, delay: float = 0.0
) -> RetryCallState:
    state = RetryCallState(retry_object=_NOBODY, fn=None, args=(), kwargs={})
    state.attempt_number = attempt
    state.start_time = 0.0
    if error is None:
        error = RuntimeError("failed")
    state.set_exception((type(error), error, error.__traceback__))
    state.outcome_timestamp = age
    state.upcoming_sleep = delay
    return state
