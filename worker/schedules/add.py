"""Schedules made at run time, over the connection and in the transaction that the caller has.

add_schedule(connection, Schedule("nightly", kind="cleanup", cron="0 3 * * *"))
await add_schedule(connection, Schedule(...))  # asyncpg, and their async kin
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Literal, overload

from worker.carrier import Talk, converse
from worker.errors import UsageError
from worker.schedules.schedule import Schedule
from worker.statements import statement

if TYPE_CHECKING:
    from worker.carrier import AsyncCarrier, SyncConnection

Added = Literal["added", "changed"]


@overload
def add_schedule(
    connection: SyncConnection,
    schedule: Schedule,
    *,
    replace: bool = True,
    by: str | None = None,
    reason: str | None = None,
) -> Added: ...
@overload
def add_schedule(
    connection: AsyncCarrier,
    schedule: Schedule,
    *,
    replace: bool = True,
    by: str | None = None,
    reason: str | None = None,
) -> Awaitable[Added]: ...
def add_schedule(
    connection: Any,
    schedule: Schedule,
    *,
    replace: bool = True,
    by: str | None = None,
    reason: str | None = None,
) -> Any:
    """Makes a schedule, or changes the one of that name; whether it is paused stays as it was.

    replace: False refuses one that is there. by, reason: recorded in worker.operator_actions; by:
    default: the user of this process.
    Raises UsageError where the code of a worker has a schedule of that name; and what the driver
    raises.
    """
    return converse(connection, _add(schedule, replace, by or _user(), reason))


@overload
def remove_schedule(
    connection: SyncConnection, name: str, *, by: str | None = None, reason: str | None = None
) -> bool: ...
@overload
def remove_schedule(
    connection: AsyncCarrier, name: str, *, by: str | None = None, reason: str | None = None
) -> Awaitable[bool]: ...
def remove_schedule(
    connection: Any, name: str, *, by: str | None = None, reason: str | None = None
) -> Any:
    """Removes a schedule; whether there was one. Jobs that it enqueued stay.

    Raises UsageError for one that the code of a live worker names.
    """
    return converse(connection, _remove(name, by or _user(), reason))


def _add(schedule: Schedule, replace: bool, by: str, reason: str | None) -> Talk[Added]:
    given = [json.dumps(schedule.row()), by, reason, replace]
    rows = yield statement("schedules/add"), given
    outcome = rows[0][1]
    if outcome == "code":
        raise in_code(schedule.name, "changed")
    if outcome == "exists":
        raise UsageError(
            f"there is a schedule {schedule.name!r}",
            hint=f"worker schedules show {schedule.name}; to change it: --replace",
        )
    return "added" if outcome == "added" else "changed"


def _remove(name: str, by: str, reason: str | None) -> Talk[bool]:
    rows = yield statement("schedules/remove"), [name, by, reason]
    if rows and rows[0][1] == "code":
        raise in_code(name, "removed")
    return bool(rows)


def in_code(name: str, done: str) -> UsageError:
    return UsageError(
        f"schedule {name!r} cannot be {done} here",
        why="it stands in the code of a worker",
        hint=f"change the code; or: worker schedules pause {name}",
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name
        return "unknown"
