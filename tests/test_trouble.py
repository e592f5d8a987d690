"""Which ends of runs speak for fewer at once."""

from __future__ import annotations

import asyncpg
import psycopg
import pytest

from worker import Dead, Retry, Snooze, Throttled
from worker.answers import HandlerTimeout
from worker.outcome import Answer, Done, Failed, Released
from worker.sessions import NoSession
from worker.trouble import Trouble, trouble_of


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (Throttled("429", retry_after=5), "throttled"),
        (Failed(HandlerTimeout("too long")), "timeout"),
        (Failed(NoSession("none was free")), "pool"),
        (Failed(asyncpg.TooManyConnectionsError("sorry")), "pool"),
        (Failed(psycopg.errors.TooManyConnections("sorry")), "pool"),
        (Failed(asyncpg.UniqueViolationError("twice")), None),
        (Failed(TimeoutError("the API's")), None),
        (Done(), None),
        (Retry(), None),
        (Snooze(after=1), None),
        (Dead(), None),
        (Released("stop", started=True), None),
    ],
)
def test_trouble(answer: Answer, trouble: Trouble | None) -> None:
    assert trouble_of(answer) == trouble
