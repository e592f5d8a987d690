"""Reads what a handler returned or raised as an answer for its row."""

from __future__ import annotations

import datetime as dt
import inspect
import json
from collections.abc import Callable
from typing import Any

from worker.errors import PayloadInvalid
from worker.outcome import (
    DONE,
    Answer,
    Cancel,
    Dead,
    Done,
    Failed,
    Outcome,
    Released,
    Retry,
    Snooze,
    Throttled,
    text_of,
)
from worker.registry import Adopted, Handler
from worker.retry import PermanentError
from worker.row import Row
from worker.run import Reason, Run

RESULT_LIMIT = 64 * 1024


class HandlerTimeout(TimeoutError):
    """The handler ran longer than its timeout: to a retry policy, an OSError like other delays."""


class Unserializable(Exception):
    """The handler's result cannot be stored as JSON."""


def arguments(run: Run) -> dict[str, Any]:
    """What the handler is called with, but for context and session. Raises PayloadInvalid."""
    table = run.handler.table
    if table is None:
        return run.handler.signature.read(run.row.args)
    return {table.row: _of_table(run.row, table)}


def data(row: Row, handler: Handler) -> Any:
    """What a row of a batch carries, in the type that the handler names. Raises PayloadInvalid."""
    if handler.table is None:
        return handler.signature.read_item(row.args)
    return _of_table(row, handler.table)


def unreadable(error: BaseException) -> Dead:
    """For a row whose arguments do not fit, or whose validator, the user's code, raises."""
    if isinstance(error, PayloadInvalid):
        return Dead(error)
    return Dead(f"the arguments could not be read: {type(error).__name__}: {text_of(error)}")


def returned(
    value: Any, row: Row, handler: Handler, seconds: float, refuse: Callable[[str], None]
) -> Answer:
    """A return value. refuse: told why a result cannot be stored; the row is done without it."""
    if value is None and handler.table is None:
        return DONE
    if (nobody := never_ran(value, handler.kind)) is not None:
        return Failed(nobody)
    if isinstance(value, Retry | Snooze | Throttled | Cancel | Dead):
        return value
    if handler.table is not None:
        return _recur(row, handler.table, value, seconds)
    try:
        return Done(_as_json(value))
    except Unserializable as error:
        refuse(str(error))
        return DONE


def never_ran(value: Any, kind: str) -> PermanentError | None:
    """For a `def` that hands back what an `async def` or a generator gave it."""
    if not (inspect.isawaitable(value) or inspect.isasyncgen(value) or inspect.isgenerator(value)):
        return None
    if inspect.iscoroutine(value):
        value.close()
    return PermanentError(
        f"the handler of {kind!r} returned a {type(value).__name__} that nobody runs",
        hint="make it `async def` and await what it calls",
    )


def raised(error: BaseException, reason: Reason | None, kind: str) -> Answer | None:
    """What came out of a handler, in the light of why it may have been asked to end. None: the
    claim is lost, there is nothing to say."""
    match reason:
        case "timeout":
            return Failed(
                HandlerTimeout(f"the handler of {kind!r} ran longer than its timeout allows")
            )
        case "stop":
            return Released("the worker stopped", started=True)
        case "cancelled":
            return Cancel("an operator asked for it")
        case "lost":
            return None
    return said(error)


def said(error: BaseException) -> Answer:
    """An outcome or an error that the handler's author chose."""
    if isinstance(error, Retry | Snooze | Throttled | Cancel | Dead):
        return error
    if isinstance(error, Outcome):
        return Failed(TypeError(f"{type(error).__name__} is no outcome a handler can raise"))
    return Failed(error)


def _of_table(row: Row, table: Adopted) -> Any:
    if isinstance(row.args, PayloadInvalid):
        raise row.args
    return table.row_type.build(row.args)


def _recur(row: Row, table: Adopted, value: Any, seconds: float) -> Done | Dead:
    """When the row of an adopted table is due again: at the time that the handler returned, or as
    its recurrence says."""
    if isinstance(value, dt.timedelta):
        return Done(next_in=max(0.0, value.total_seconds()))
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            return Dead(  # no second run would mend it, and the first has done its work
                f"the handler returned a time without a time zone, {value.isoformat()}: "
                "return datetime.now(UTC) + ..., or a timedelta from now"
            )
        return Done(next_at=value)
    assert row.occurrence is not None
    now = row.claimed_at + dt.timedelta(seconds=seconds)
    return table.recurrence.after(row.occurrence, now, None)


def _as_json(value: Any) -> str:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode())
    except Exception as error:  # a subclass of dict may raise anything
        raise Unserializable(text_of(error)) from None
    if size > RESULT_LIMIT:
        raise Unserializable(f"{size} bytes are over the limit of {RESULT_LIMIT}")
    if "\\u0000" in text:
        raise Unserializable("it holds a NUL, which Postgres does not store")
    return text
