"""Every rule of the state machine: what a handler's answer does to its row.

    done       -> gone to jobs_finished as done
    retry      -> waiting, later; dead when the attempts are used up
    snooze     -> waiting, later, the attempt given back
    throttled  -> as snooze; the rows of its key are left alone as long
    cancel     -> gone to jobs_finished as cancelled
    dead       -> gone to jobs_finished as dead
    failed     -> as retry, or dead when the policy says that trying again cannot help
    released   -> waiting, due as before, the attempt given back

Pure: no clock, no database. The statements that carry a transition out are in sql/settle/.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal, assert_never

from worker.outcome import (
    DONE,
    MESSAGE_LIMIT,
    Answer,
    Cancel,
    Dead,
    Done,
    Failed,
    Fault,
    Released,
    Retry,
    Snooze,
    Throttled,
    storable,
)
from worker.retry import RetryPolicy
from worker.row import Row

Verb = Literal["done", "retry", "snooze", "released", "dead", "cancelled"]


@dataclass(frozen=True, slots=True)
class Transition:
    """What to write for one claim.

    next_at / delay: the next due time, as a moment or as seconds from the database's now();
        both None leaves it as it is.
    put_off: seconds that the row is held back beyond its next due time.
    refund: attempts given back. result: JSON text. recorded: worth a line in worker.attempts.
    """

    verb: Verb
    next_at: dt.datetime | None = None
    delay: float | None = None
    refund: int = 0
    result: str | None = None
    fault: Fault | None = None
    recorded: bool = True
    put_off: float = 0.0


GONE_DONE = Transition("done")


def decide(row: Row, answer: Answer, policy: RetryPolicy) -> Transition:
    """The transition that `answer` asks for."""
    if answer is DONE:
        return GONE_DONE
    match answer:
        case Done():
            return Transition(
                "done", answer.next_at, answer.next_in, result=answer.result, put_off=answer.put_off
            )
        case Failed(error=error):
            return _after_failure(row, error, policy)
        case Retry():
            return _after_retry(row, answer, policy)
        case Snooze(after=after, at=at, reason=reason):
            return Transition("snooze", at, after, refund=1, fault=_noted("Snooze", reason))
        case Throttled(after=after, at=at, reason=reason):
            fault = _noted("Throttled", reason or "told to come back later")
            return Transition("snooze", at, after, refund=1, fault=fault)
        case Cancel(reason=reason):
            return Transition("cancelled", fault=_noted("Cancel", reason))
        case Dead(reason=reason):
            return Transition("dead", fault=_noted("Dead", reason or "the handler gave up"))
        case Released(reason=reason, started=started):
            return Transition(
                "released", refund=1, fault=_noted("Released", reason), recorded=started
            )
        case _:
            assert_never(answer)


def spent(row: Row, policy: RetryPolicy) -> Transition | None:
    """Dead, if no attempt is left: the last ones ended with their workers, unsettled.

    An attempt that was settled has been judged. So only rows with crashes are asked, and time is
    left out: a row that was granted another attempt is not to die of having waited for it.
    """
    if not row.crashes or row.attempt <= 1:
        return None
    if policy.exhausted(row.attempt - 1, 0.0, row.max_attempts):
        fault = _noted(
            "AttemptsSpent", f"no attempt left after {row.attempt - 1}, the last one never ended"
        )
        return Transition("dead", fault=fault, refund=1)
    return None


def _after_failure(row: Row, error: BaseException, policy: RetryPolicy) -> Transition:
    fault = Fault.of(error)
    try:
        return _judged(row, error, fault, policy)
    except Exception as broken:
        fault.message = _policy_failed(broken, fault.message)
        return _judged(row, error, fault, RetryPolicy())


def _judged(row: Row, error: BaseException, fault: Fault, policy: RetryPolicy) -> Transition:
    if not policy.retryable(error, row.attempt):
        return Transition("dead", fault=fault)
    delay = policy.delay(row.attempt, error)
    if policy.exhausted(row.attempt, _age(row), row.max_attempts, delay):
        return Transition("dead", fault=fault)
    return Transition("retry", delay=delay, fault=fault)


def _after_retry(row: Row, answer: Retry, policy: RetryPolicy) -> Transition:
    try:
        return _again(row, answer, _noted("Retry", answer.reason), policy)
    except Exception as broken:
        fault = _noted("Retry", _policy_failed(broken, answer.reason or "no reason given"))
        return _again(row, answer, fault, RetryPolicy())


def _again(row: Row, answer: Retry, fault: Fault | None, policy: RetryPolicy) -> Transition:
    named = answer.at is not None or answer.after is not None
    delay = answer.after if named else policy.delay(row.attempt)
    if policy.exhausted(row.attempt, _age(row), row.max_attempts, delay or 0.0):
        return Transition("dead", fault=fault or _noted("Retry", "no attempt left"))
    return Transition("retry", answer.at, delay, fault=fault)


def _policy_failed(broken: Exception, after: str) -> str:
    """The policy's objects are the user's code: when one raises, the default policy judges."""
    return storable(
        f"the retry policy failed: {Fault.of(broken).message}; after: {after}", MESSAGE_LIMIT
    )


def _noted(kind: str, reason: str | None) -> Fault | None:
    return None if reason is None else Fault(kind, storable(reason, MESSAGE_LIMIT), kind, None)


def _age(row: Row) -> float:
    """Seconds from the row's creation to this claim, for policies that stop by time."""
    return row.claimed - row.created
