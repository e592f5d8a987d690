"""tenacity's objects as the retry policy, judged by the attempt that stands in the row."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st
from tenacity.wait import wait_exception

from worker.errors import UsageError
from worker.outcome import LONGEST_DELAY
from worker.retry import PermanentError, RetryPolicy, wait_spread

attempts = st.integers(1, 10_000)


def delays(wait: Any, upto: int = 6) -> list[float]:
    policy = RetryPolicy(wait=wait)
    return [policy.delay(attempt) for attempt in range(1, upto + 1)]


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        (tenacity.wait_none(), [0, 0, 0, 0, 0, 0]),
        (tenacity.wait_fixed(7), [7, 7, 7, 7, 7, 7]),
        (tenacity.wait_incrementing(start=5, increment=10, max=30), [5, 15, 25, 30, 30, 30]),
        (tenacity.wait_exponential(multiplier=3, max=40), [3, 6, 12, 24, 40, 40]),
        (tenacity.wait_exponential(min=2, max=3600), [2, 2, 4, 8, 16, 32]),
        (
            tenacity.wait_chain(*map(tenacity.wait_fixed, (1, 5, 60))),
            [1, 5, 60, 60, 60, 60],
        ),
        (tenacity.wait_fixed(2) + tenacity.wait_fixed(3), [5, 5, 5, 5, 5, 5]),
        (tenacity.wait_combine(tenacity.wait_fixed(1), tenacity.wait_none()), [1] * 6),
        (wait_spread(tenacity.wait_fixed(8), by=0), [8, 8, 8, 8, 8, 8]),
        (lambda state: state.attempt_number * 2, [2, 4, 6, 8, 10, 12]),
    ],
)
def test_wait_by_the_attempt_in_the_row(wait: Any, expected: list[float]) -> None:
    assert delays(wait) == expected


@pytest.mark.parametrize(
    ("wait", "low", "high"),
    [
        (tenacity.wait_random(2, 4), 2, 4),
        (tenacity.wait_random_exponential(multiplier=1, max=50), 0, 50),
        (tenacity.wait_full_jitter(multiplier=1, max=50), 0, 50),
        (tenacity.wait_exponential_jitter(max=50, jitter=3), 1, 50),
        (wait_spread(tenacity.wait_fixed(100), by=0.25), 75, 125),
        (RetryPolicy().wait, 1.5, 4500),
    ],
)
@given(attempt=attempts)
def test_random_waits_stay_in_their_bounds(
    wait: Any, low: float, high: float, attempt: int
) -> None:
    assert low <= RetryPolicy(wait=wait).delay(attempt) <= high


def test_the_wait_may_depend_on_the_error() -> None:
    policy = RetryPolicy(wait=wait_exception(lambda error: float(str(error))))
    assert policy.delay(1, RuntimeError("31")) == 31


def test_rows_that_failed_together_do_not_come_back_together() -> None:
    assert len({RetryPolicy().delay(5) for _ in range(20)}) > 10


@pytest.mark.parametrize("endless", [1e300, float("inf"), 2**62])
def test_no_wait_overflows_a_timestamp(endless: float) -> None:
    assert RetryPolicy(wait=tenacity.wait_fixed(endless)).delay(1) == LONGEST_DELAY


@given(attempts)
def test_an_unbounded_exponential_is_bounded(attempt: int) -> None:
    assert 0 <= RetryPolicy(wait=tenacity.wait_exponential()).delay(attempt) <= LONGEST_DELAY


def test_a_negative_wait_is_none() -> None:
    assert RetryPolicy(wait=tenacity.wait_fixed(-3)).delay(1) == 0


def test_a_wait_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(UsageError, match="the policy's wait is not a number"):
        RetryPolicy(wait=tenacity.wait_fixed(float("nan"))).delay(1)


def lasts(stop: Any, *, seconds_each: float = 10.0, upto: int = 20) -> int | None:
    """How many attempts a row gets whose runs lie `seconds_each` apart; None: at least `upto`."""
    policy = RetryPolicy(stop=stop)
    for attempt in range(1, upto):
        age = (attempt - 1) * seconds_each
        if policy.exhausted(attempt, age, None, delay=seconds_each):
            return attempt
    return None


EVENT = threading.Event()
EVENT.set()


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (tenacity.stop_after_attempt(4), 4),
        (tenacity.stop_never, None),
        (tenacity.stop_after_delay(35), 5),
        (tenacity.stop_before_delay(35), 4),
        (tenacity.stop_when_event_set(EVENT), 1),
        (tenacity.stop_when_event_set(threading.Event()), None),
        (tenacity.stop_any(tenacity.stop_after_attempt(6), tenacity.stop_after_delay(20)), 3),
        (tenacity.stop_all(tenacity.stop_after_attempt(6), tenacity.stop_after_delay(20)), 6),
        (tenacity.stop_after_attempt(6) | tenacity.stop_after_delay(20), 3),
        (tenacity.stop_after_attempt(6) & tenacity.stop_after_delay(20), 6),
        (lambda state: state.attempt_number >= 2, 2),
        (RetryPolicy().stop, 12),
    ],
)
def test_stop(stop: Any, expected: int | None) -> None:
    assert lasts(stop) == expected


@given(attempt=attempts, most=st.integers(1, 100))
def test_the_rows_own_limit_goes_before_the_policy(attempt: int, most: int) -> None:
    for stop in (tenacity.stop_after_attempt(1), tenacity.stop_never):
        assert RetryPolicy(stop=stop).exhausted(attempt, 1e9, most) is (attempt >= most)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


VALUE, TIMED_OUT = ValueError("no such card"), TimeoutError("slow")


@pytest.mark.parametrize(
    ("retry_if", "yes", "no"),
    [
        (tenacity.retry_always, VALUE, None),
        (tenacity.retry_never, None, VALUE),
        (tenacity.retry_if_exception_type(OSError), TIMED_OUT, VALUE),
        (tenacity.retry_if_exception_type((KeyError, OSError)), KeyError("k"), VALUE),
        (tenacity.retry_if_not_exception_type(OSError), VALUE, TIMED_OUT),
        (tenacity.retry_unless_exception_type(OSError), VALUE, TIMED_OUT),
        (tenacity.retry_if_exception(lambda e: "slow" in str(e)), TIMED_OUT, VALUE),
        (tenacity.retry_if_exception_message(message="slow"), TIMED_OUT, VALUE),
        (tenacity.retry_if_exception_message(match="no such .*"), VALUE, TIMED_OUT),
        (tenacity.retry_if_not_exception_message(match="no such .*"), TIMED_OUT, VALUE),
        (
            tenacity.retry_if_exception_cause_type(OSError),
            caused(ValueError("caused"), TIMED_OUT),
            VALUE,
        ),
        (tenacity.retry_if_result(lambda _: True), None, VALUE),
        (tenacity.retry_if_not_result(lambda _: True), None, VALUE),
        (
            tenacity.retry_any(
                tenacity.retry_if_exception_type(OSError),
                tenacity.retry_if_exception_type(KeyError),
            ),
            KeyError("k"),
            VALUE,
        ),
        (
            tenacity.retry_all(
                tenacity.retry_if_exception_type(OSError),
                tenacity.retry_if_exception_message(message="slow"),
            ),
            TIMED_OUT,
            OSError("quick"),
        ),
        (lambda state: state.attempt_number < 3, VALUE, None),
        (RetryPolicy().retry_if, SystemExit(1), None),
    ],
)
def test_retry_if(retry_if: Any, yes: BaseException | None, no: BaseException | None) -> None:
    policy = RetryPolicy(retry_if=retry_if)
    if yes is not None:
        assert policy.retryable(yes, 1)
    if no is not None:
        assert not policy.retryable(no, 1)


def test_retry_if_by_attempt() -> None:
    policy = RetryPolicy(retry_if=lambda state: state.attempt_number < 3)  # type: ignore[arg-type]
    assert [policy.retryable(VALUE, attempt) for attempt in (1, 2, 3)] == [True, True, False]


def test_permanent_errors_are_never_retried() -> None:
    class Declined(Exception):
        pass

    class Stolen(Declined):
        pass

    policy = RetryPolicy(permanent=(Declined,), retry_if=tenacity.retry_always)
    assert not policy.retryable(Stolen(), 1)
    assert policy.retryable(VALUE, 1)
    assert not RetryPolicy().retryable(PermanentError("gone for good"), 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"wait": 5},
            "RetryPolicy(wait=...) is not one of tenacity's objects\n"
            "  why:  it is a int\n"
            "  next: for example tenacity.wait_fixed(5)",
        ),
        (
            {"stop": 5},
            "RetryPolicy(stop=...) is not one of tenacity's objects\n"
            "  why:  it is a int\n"
            "  next: for example tenacity.stop_after_attempt(5)",
        ),
        (
            {"retry_if": (OSError,)},
            "RetryPolicy(retry_if=...) is not one of tenacity's objects\n"
            "  why:  it is a tuple\n"
            "  next: for example tenacity.retry_if_exception_type(OSError)",
        ),
        ({"permanent": ["OSError"]}, "RetryPolicy(permanent=...) takes a tuple of error classes"),
    ],
)
def test_a_policy_that_could_never_work_is_refused_at_once(
    arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        RetryPolicy(**arguments)
    assert str(refused.value) == said
