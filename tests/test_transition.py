"""Every rule of the state machine, without a database."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from tests.rows import NOON, row
from worker.errors import UsageError
from worker.outcome import (
    LONGEST_DELAY,
    Answer,
    Cancel,
    Dead,
    Done,
    Failed,
    Released,
    Retry,
    Snooze,
)
from worker.retry import PermanentError, RetryPolicy
from worker.transition import Transition, decide, spent

ONCE_A_MINUTE = RetryPolicy(wait=tenacity.wait_fixed(60), stop=tenacity.stop_after_attempt(3))
LATER = NOON + dt.timedelta(days=1)

texts = st.text(st.characters(exclude_categories=()))  # NUL and lone surrogates too
answers = st.one_of(
    st.builds(Done, st.none() | st.just('{"a":1}')),
    st.builds(Retry, st.none() | texts),
    st.builds(lambda s: Retry(after=s), st.floats(0, LONGEST_DELAY)),
    st.builds(lambda s: Snooze("later", after=s), st.floats(0, LONGEST_DELAY)),
    st.builds(Cancel, st.none() | texts),
    st.builds(Dead, st.none() | texts),
    st.builds(Failed, st.sampled_from([ValueError("x"), PermanentError("y"), SystemExit(2)])),
    st.builds(Released, texts, st.booleans()),
)
rows = st.builds(
    lambda attempt, most, crashes, age: row(
        attempt=attempt,
        max_attempts=most,
        crashes=crashes,
        claimed_at=NOON + dt.timedelta(seconds=age),
    ),
    st.integers(1, 50),
    st.none() | st.integers(1, 40),
    st.integers(0, 3),
    st.floats(0, 1e8),
)
policies = st.builds(
    RetryPolicy,
    wait=st.sampled_from([tenacity.wait_fixed(1), tenacity.wait_exponential()]),
    stop=st.sampled_from(
        [tenacity.stop_never, tenacity.stop_after_attempt(5), tenacity.stop_after_delay(100)]
    ),
)


def test_done_carries_its_result() -> None:
    assert decide(row(), Done('{"id":3}'), ONCE_A_MINUTE) == Transition("done", result='{"id":3}')


def test_a_failure_is_retried_until_the_attempts_are_used_up() -> None:
    seen = [decide(row(attempt=n), Failed(ValueError("no")), ONCE_A_MINUTE) for n in (1, 2, 3)]
    assert [(t.verb, t.delay, t.refund) for t in seen] == [
        ("retry", 60, 0),
        ("retry", 60, 0),
        ("dead", None, 0),
    ]
    assert all(t.fault and t.fault.message == "no" and t.fault.type == "ValueError" for t in seen)


def test_permanent_errors_end_the_row_at_once() -> None:
    class Declined(Exception):
        pass

    policy = RetryPolicy(permanent=(Declined,))
    assert decide(row(), Failed(Declined("card")), policy).verb == "dead"
    assert decide(row(), Failed(PermanentError("gone")), policy).verb == "dead"
    assert decide(row(), Failed(ValueError("other")), policy).verb == "retry"


def test_retry_by_the_handler() -> None:
    def said(answer: Retry, attempt: int = 1) -> Transition:
        return decide(row(attempt=attempt), answer, ONCE_A_MINUTE)

    assert said(Retry()) == Transition("retry", delay=60)
    assert said(Retry(after=5)) == Transition("retry", delay=5)
    assert said(Retry(after=0)) == Transition("retry", delay=0)
    assert said(Retry(after=dt.timedelta(minutes=2))) == Transition("retry", delay=120)
    assert said(Retry(at=LATER)) == Transition("retry", next_at=LATER)
    assert said(Retry("busy", after=5), 3).verb == "dead"
    named = said(Retry("busy"))
    assert named.fault is not None
    assert (named.fault.type, named.fault.message) == ("Retry", "busy")


def test_a_row_that_dies_of_a_retry_says_so() -> None:
    dead = decide(row(attempt=3), Retry(), ONCE_A_MINUTE)
    assert dead.fault is not None
    assert dead.fault.message == "no attempt left"


def test_snooze_gives_the_attempt_back() -> None:
    assert decide(row(attempt=3), Snooze(after=5), ONCE_A_MINUTE) == Transition(
        "snooze", delay=5, refund=1
    )
    assert decide(row(), Snooze(at=LATER), ONCE_A_MINUTE).next_at == LATER


def test_release_gives_the_attempt_back_and_leaves_the_due_time() -> None:
    seen = decide(row(), Released("the worker stopped", started=True), ONCE_A_MINUTE)
    assert (seen.verb, seen.refund, seen.next_at, seen.delay) == ("released", 1, None, None)
    assert seen.recorded
    assert not decide(row(), Released("never started", started=False), ONCE_A_MINUTE).recorded


def test_cancel_and_dead_are_final() -> None:
    assert decide(row(), Cancel(), ONCE_A_MINUTE) == Transition("cancelled")
    dead = decide(row(), Dead(), ONCE_A_MINUTE)
    assert dead.fault is not None
    assert (dead.verb, dead.fault.message) == ("dead", "the handler gave up")


@given(rows, answers, policies)
def test_no_attempt_beyond_the_limit(row: Any, answer: Answer, policy: RetryPolicy) -> None:
    seen = decide(row, answer, policy)
    next_attempt = row.attempt - seen.refund + 1
    if seen.verb == "retry" and row.max_attempts is not None:
        assert next_attempt <= row.max_attempts
    if seen.verb in ("snooze", "released"):
        assert next_attempt == row.attempt


@given(rows, answers, policies)
def test_only_snooze_and_release_are_free(row: Any, answer: Answer, policy: RetryPolicy) -> None:
    seen = decide(row, answer, policy)
    assert seen.refund == (1 if seen.verb in ("snooze", "released") else 0)


@given(rows, answers, policies)
def test_every_transition_can_be_written(row: Any, answer: Answer, policy: RetryPolicy) -> None:
    seen = decide(row, answer, policy)
    assert seen.delay is None or 0 <= seen.delay <= LONGEST_DELAY
    assert seen.next_at is None or seen.next_at.utcoffset() == dt.timedelta(0)
    for text in (seen.fault.message, seen.fault.type) if seen.fault else ():
        text.encode()
        assert "\0" not in text
    assert seen.verb == "done" or seen.result is None


@given(rows, answers, policies)
def test_no_answer_of_a_handler_is_lost_to_its_policy(
    row: Any, answer: Answer, policy: RetryPolicy
) -> None:
    """A policy whose objects raise is the default policy."""

    def broken(state: Any) -> float:
        raise ZeroDivisionError("by zero")

    for part in ("wait", "stop", "retry_if"):
        with_bug = RetryPolicy(**{part: broken})  # type: ignore[arg-type]
        seen = decide(row, answer, with_bug)
        ruled = decide(row, answer, RetryPolicy())
        assert seen.verb == ruled.verb


def test_a_broken_policy_is_told_with_what_it_hid() -> None:
    def broken(error: BaseException) -> bool:
        raise KeyError("code")

    policy = RetryPolicy(retry_if=tenacity.retry_if_exception(broken))
    seen = decide(row(), Failed(ValueError("declined")), policy)
    assert seen.fault is not None
    assert seen.fault.message == "the retry policy failed: 'code'; after: declined"


class TestSpent:
    """A row whose last attempts ended with their workers."""

    def test_the_attempts_of_the_policy(self) -> None:
        crashed = row(attempt=4, crashes=1)
        dead = spent(crashed, ONCE_A_MINUTE)
        assert dead is not None
        assert dead.fault is not None
        assert (dead.verb, dead.refund) == ("dead", 1)
        assert dead.fault.message == "no attempt left after 3, the last one never ended"
        assert spent(row(attempt=3, crashes=2), ONCE_A_MINUTE) is None

    def test_only_after_a_crash(self) -> None:
        """Without one the attempt before was judged: then a policy that was made stricter since,
        or an operator's retry of a dead row, must not end it unrun."""
        assert spent(row(attempt=4), ONCE_A_MINUTE) is None

    def test_not_for_having_waited(self) -> None:
        """stop_after_delay was asked when the attempt ended; the wait that it granted is not
        held against the row."""
        policy = RetryPolicy(stop=tenacity.stop_after_delay(60))
        late = row(attempt=2, crashes=1, claimed_at=NOON + dt.timedelta(hours=1))
        assert spent(late, policy) is None

    def test_never_the_first_attempt(self) -> None:
        assert spent(row(attempt=1, crashes=2), ONCE_A_MINUTE) is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Snooze(), "Snooze needs `after` or `at`: without a time the row would spin"),
        (lambda: Retry(after=-1), "Retry(after=-1) is not between 0 s and ten years"),
        (lambda: Retry(after=float("nan")), "Retry(after=nan) is not between 0 s and ten years"),
        (
            lambda: Snooze(after=1e12),
            "Snooze(after=1000000000000.0) is not between 0 s and ten years",
        ),
        (lambda: Retry(after=1, at=LATER), "Retry takes `after` or `at`, not both"),
        (
            lambda: Retry(at=dt.datetime(2026, 1, 1)),
            "Retry(at=...) needs a time zone\n  why:  2026-01-01T00:00:00 has none",
        ),
        (
            lambda: Retry(at=dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=5)))),
            "Retry(at=...) is out of range\n  why:  9999-12-31T23:59:59.999999-05:00",
        ),
    ],
)
def test_times_that_make_no_sense(make: Any, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        make()
    assert str(refused.value) == said


def test_a_reason_may_be_an_error() -> None:
    assert Dead(ValueError("declined")).reason == "declined"
    assert Retry(TimeoutError("slow"), after=3).reason == "slow"
    assert Cancel().reason is None
