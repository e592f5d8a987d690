"""Every rule of the state machine: what a handler's answer does to its row.

    done       -> gone to jobs_finished as done
    retry      -> waiting, later; dead when the attempts are used up
    snooze     -> waiting, later, the attempt given back
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
    Answer,
    Cancel,
    Dead,
    Done,
    Failed,
    Fault,
    Released,
    Retry,
    Snooze,
    storable,
)
from worker.retry import RetryPolicy
from worker.row import Row

Verb = Literal["done", "retry", "snooze", "released", "dead", "cancelled"]


@dataclass(slots=True)
class Transition:
    """What to write for one claim.

    next_at / delay: the next due time, as a moment or as seconds from the database's now();
        both None leaves it as it is.
    refund: attempts given back. result: JSON text. recorded: worth a line in worker.attempts.
    """

    verb: Verb
    next_at: dt.datetime | None = None
    delay: float | None = None
    refund: int = 0
    result: str | None = None
    fault: Fault | None = None
    recorded: bool = True


def decide(row: Row, answer: Answer, policy: RetryPolicy) -> Transition:
    """The transition that `answer` asks for."""
    match answer:
        case Done(result=result):
            return Transition("done", result=result)
        case Failed(error=error):
            return _after_failure(row, error, policy)
        case Retry():
            return _after_retry(row, answer, policy)
        case Snooze(after=after, at=at, reason=reason):
            return Transition("snooze", at, after, refund=1, fault=_noted("Snooze", reason))
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
    """Dead, if no attempt is left: the last ones ended with their workers, unsettled."""
    if row.attempt > 1 and policy.exhausted(row.attempt - 1, _age(row), row.max_attempts):
        fault = _noted(
            "AttemptsSpent", f"no attempt left after {row.attempt - 1}, the last one never ended"
        )
        return Transition("dead", fault=fault, refund=1)
    return None


def _after_failure(row: Row, error: BaseException, policy: RetryPolicy) -> Transition:
    fault = Fault.of(error)
    if not policy.retryable(error, row.attempt):
        return Transition("dead", fault=fault)
    if policy.exhausted(row.attempt, _age(row), row.max_attempts):
        return Transition("dead", fault=fault)
    return Transition("retry", delay=policy.delay(row.attempt, error), fault=fault)


def _after_retry(row: Row, answer: Retry, policy: RetryPolicy) -> Transition:
    fault = _noted("Retry", answer.reason)
    if policy.exhausted(row.attempt, _age(row), row.max_attempts):
        return Transition("dead", fault=fault)
    if answer.at is None and answer.after is None:
        return Transition("retry", delay=policy.delay(row.attempt), fault=fault)
    return Transition("retry", answer.at, answer.after, fault=fault)


def _noted(kind: str, reason: str | None) -> Fault | None:
    return None if reason is None else Fault(kind, storable(reason, 2_000), kind, None)


def _age(row: Row) -> float:
    """Seconds from the row's creation to this claim, for policies that stop by time."""
    return (row.claimed_at - row.created_at).total_seconds()
