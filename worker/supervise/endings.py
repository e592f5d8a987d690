"""What the end of a process means, by its exit code, or by the signal that ended it as a negative
number."""

from __future__ import annotations

import signal

from worker.errors import AppImportError, ProcessesDied, SchemaError, TableUnfit, UsageError
from worker.heartbeat import GRACE_PASSED
from worker.interrupts import FORCED

GIVE_UP = 4  # deaths in a row of each process before it was up

_TOLD = range(1, GRACE_PASSED)  # it has met an error, and has said which
_HOPELESS = frozenset(
    error.exit_code for error in (UsageError, SchemaError, AppImportError, TableUnfit)
)


def is_final(code: int, *, led: bool) -> bool:
    """Whether another would end likewise, now that one did before it was up. led: one has been up.

    Before that any error is as if there were no supervisor. Afterwards a database that does not
    answer, say, is waited for: the others wait for it too.
    """
    return code in (_HOPELESS if led else _TOLD)


def is_expected(code: int) -> bool:
    """Of one that was told to stop. SIGTERM itself ends only what has not begun, or is over."""
    return code in (0, -signal.SIGTERM, GRACE_PASSED, FORCED)


def whole(before: int, code: int) -> int:
    """The exit code of all, with this end after others that gave `before`."""
    if before or code in (0, -signal.SIGTERM):
        return before
    return code if is_expected(code) else 1


def described(code: int) -> dict[str, int | str]:
    return {"signal": signal.Signals(-code).name} if code < 0 else {"code": code}


def given_up(code: int) -> ProcessesDied:
    """The error for it. code: of the last that ended, negative for a signal."""
    how = " ".join(map(str, *described(code).items()))
    return ProcessesDied(
        "the worker's processes end as soon as they are started",
        why=f"each has ended {GIVE_UP} times before it took rows, the last time with {how}",
        hint="worker run --processes 1",
    )
