"""What a handler answers.

A handler that returns is done; what it returns, if anything, is the row's result. To say
something else it returns or raises one of `Retry`, `Snooze`, `Cancel`, `Dead`. Any other
exception is a `Failed` attempt, for the retry policy to judge.
"""

from __future__ import annotations

import datetime as dt
import traceback
from dataclasses import dataclass

from worker.errors import UsageError

MESSAGE_LIMIT = 2_000
TRACEBACK_LIMIT = 16_000
LONGEST_DELAY = 10 * 365 * 86_400.0
"""Seconds: more is a slip, and overflows a timestamp sooner or later."""


class Outcome(Exception):
    """An answer that can be returned, or raised from deep inside a handler.

    reason: a text, or an error to take it from.
    """

    def __init__(self, reason: object = None) -> None:
        super().__init__("" if reason is None else reason)
        self.reason = None if reason is None else str(reason)


class _Postponed(Outcome):
    """An outcome that names a time: `after` seconds from now, or `at` a moment."""

    def __init__(
        self,
        reason: object = None,
        *,
        after: float | dt.timedelta | None = None,
        at: dt.datetime | None = None,
    ) -> None:
        name = type(self).__name__
        if after is not None and at is not None:
            raise UsageError(f"{name} takes `after` or `at`, not both")
        if isinstance(after, dt.timedelta):
            after = after.total_seconds()
        if after is not None and not 0 <= after <= LONGEST_DELAY:
            raise UsageError(f"{name}(after={after!r}) is not between 0 s and ten years")
        super().__init__(reason)
        self.after = None if after is None else float(after)
        self.at = None if at is None else _in_utc(name, at)


def _in_utc(name: str, at: dt.datetime) -> dt.datetime:
    if at.tzinfo is None:
        raise UsageError(f"{name}(at=...) needs a time zone", why=f"{at.isoformat()} has none")
    try:
        return at.astimezone(dt.UTC)
    except OverflowError:
        raise UsageError(f"{name}(at=...) is out of range", why=at.isoformat()) from None


class Retry(_Postponed):
    """Run the row again. Costs an attempt; without a time the policy says when."""


class Snooze(_Postponed):
    """Run the row later. Costs no attempt. Needs `after` or `at`."""

    def __init__(
        self,
        reason: object = None,
        *,
        after: float | dt.timedelta | None = None,
        at: dt.datetime | None = None,
    ) -> None:
        if after is None and at is None:
            raise UsageError("Snooze needs `after` or `at`: without a time the row would spin")
        super().__init__(reason, after=after, at=at)


class Throttled(_Postponed):
    """The outside asks to be left alone for a while: the row runs later, at no cost of an attempt,
    and until then no worker claims another row of the same key.

    retry_after: seconds (or `at`: until when). key: whom it is about; default: the row's tenant, or
        all rows of the kind if it has none. queue: the key's rows of the whole queue, whatever
        their kind.
    """

    def __init__(
        self,
        reason: object = None,
        *,
        retry_after: float | dt.timedelta | None = None,
        at: dt.datetime | None = None,
        key: str | None = None,
        queue: bool = False,
    ) -> None:
        if retry_after is None and at is None:
            raise UsageError(
                "Throttled needs `retry_after` or `at`",
                why="without a time nothing would ever be tried again",
                hint="raise Throttled(retry_after=60)",
            )
        super().__init__(reason, after=retry_after, at=at)
        self.key = key
        self.queue = queue

    def seconds(self, now: dt.datetime) -> float:
        """How long it lasts from `now` on."""
        if self.after is not None:
            return self.after
        assert self.at is not None
        return max(0.0, (self.at - now).total_seconds())


class Cancel(Outcome):
    """The row need not run any more. Final."""


class Dead(Outcome):
    """The row can never succeed. Final, until an operator retries it."""


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned. `result` is its result as JSON text, or None.

    next_at, next_in: when a row of an adopted table is due again, as a moment or in seconds from
        the database's now(); both None: never. put_off: seconds that it is held back beyond that.
    """

    result: str | None = None
    next_at: dt.datetime | None = None
    next_in: float | None = None
    put_off: float = 0.0


DONE = Done()
"""What nearly every handler answers."""


@dataclass(slots=True)
class Failed:
    """The handler raised."""

    error: BaseException


@dataclass(slots=True)
class Released:
    """The worker stopped before the handler could end. Costs no attempt."""

    reason: str
    started: bool


Answer = Done | Retry | Snooze | Throttled | Cancel | Dead | Failed | Released


@dataclass(slots=True)
class Fault:
    """An error as it is stored: safe for Postgres, bounded, with a fingerprint to group by."""

    type: str
    message: str
    fingerprint: str
    traceback: str | None

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        name = type(error).__qualname__
        frame = _innermost(error)
        return cls(
            type=storable(name),
            message=storable(text_of(error) or name, MESSAGE_LIMIT),
            fingerprint=storable(f"{name}@{frame}" if frame else name, 200),
            traceback=_traceback(error),
        )


def text_of(error: BaseException) -> str:
    """What it says; an error whose own text fails must not keep its row from being settled."""
    try:
        return str(error)
    except Exception as worse:
        return f"its text could not be read: {type(worse).__name__}"


def _innermost(error: BaseException) -> str | None:
    """Where the error was raised, without the line number: it survives edits above it."""
    tb = error.__traceback__
    if tb is None:
        return None
    while tb.tb_next is not None:
        tb = tb.tb_next
    code = tb.tb_frame.f_code
    return f"{tb.tb_frame.f_globals.get('__name__', '?')}:{code.co_qualname}"


def _traceback(error: BaseException) -> str | None:
    if error.__traceback__ is None:
        return None
    text = "".join(traceback.format_exception(error))
    if len(text) > TRACEBACK_LIMIT:
        text = text[: TRACEBACK_LIMIT // 2] + "\n...\n" + text[-TRACEBACK_LIMIT // 2 :]
    return storable(text, TRACEBACK_LIMIT + 5)


def storable(text: str, limit: int = 200) -> str:
    """`text` without what Postgres refuses (NUL, lone surrogates), cut to `limit` characters."""
    text = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"
