"""What a handler of batches is given: several rows, each to be answered on its own.

    @app.batch("track", size=50)
    async def track(parcels: Batch[Parcel]) -> None:
        states = await carrier.states([parcel.data.number for parcel in parcels])
        for parcel in parcels:
            match states.get(parcel.data.number):
                case None:
                    parcel.settle(Dead("the carrier does not know it"))
                case "on its way":
                    parcel.settle(Retry(after=3600))
                case state:
                    parcel.done({"state": state})

The answer is given to the row itself, so that none can go to the wrong one, and a row without an
answer has failed: nothing is done in silence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from worker.context import Context
from worker.errors import UsageError

T = TypeVar("T")


@dataclass(slots=True)
class Said:
    """The handler said that the row is done. value: what one for single rows would return."""

    value: Any


class Item(Generic[T]):
    """One row of a batch.

    data: the job's arguments in the type that the batch names; of an adopted table, the row.
    context: this row's own: its id, attempt, tenant, idempotency key, and whether it is cancelled.
    """

    __slots__ = ("_closed", "answer", "context", "data")

    data: T

    def __init__(self, context: Context) -> None:
        self.context = context
        self.answer: Said | BaseException | None = None  # as it was given; read by the worker
        self._closed = ""

    def done(self, result: Any = None) -> None:
        """The row is done. result: JSON, kept with the job; for a row of a table, when it is due
        again, as a datetime or as a timedelta from now."""
        if isinstance(result, BaseException):
            raise UsageError(
                f"a row was said to be done with a {type(result).__name__}",
                hint=f"item.settle({type(result).__name__}(...))",
            )
        self._say(Said(result))

    def settle(self, answer: BaseException) -> None:
        """Anything but done: Retry, Snooze, Cancel or Dead; or an error, which is a failed attempt
        for the retry policy to judge."""
        if not isinstance(answer, BaseException):
            raise UsageError(
                f"{type(answer).__name__} is no answer for a row",
                why="it takes Retry, Snooze, Cancel, Dead or an error",
                hint="item.done(result), if the row is done",
            )
        self._say(answer)

    @property
    def answered(self) -> bool:
        return self.answer is not None

    def close(self, why: str) -> None:
        """Called by the worker: no answer is taken any more."""
        self._closed = why

    def _say(self, answer: Said | BaseException) -> None:
        if self._closed:
            raise UsageError(
                f"row {self.context.row.row_key} was answered too late", why=self._closed
            )
        if self.answer is not None:
            raise UsageError(
                f"row {self.context.row.row_key} was answered twice",
                why="the first answer stands",
                hint="if not item.answered: ...",
            )
        self.answer = answer

    def __repr__(self) -> str:
        return f"<Item {self.context.row.source} {self.context.row.row_key}>"


class Batch(Sequence[Item[T]]):
    """The rows of one call. `Batch[Parcel]` asks for each row's data as a Parcel: a dataclass, a
    pydantic model, a TypedDict, or dict.

    deadline: when the timeout ends the call, on the clock of `time.monotonic()`; None for never.
    """

    __slots__ = ("_cancelled", "_items", "_stop", "deadline")

    def __init__(self, items: Sequence[Item[T]], deadline: float | None = None) -> None:
        self._items = tuple(items)
        self.deadline = deadline
        self._cancelled = False
        self._stop = threading.Event()

    @overload
    def __getitem__(self, index: int) -> Item[T]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item[T]]: ...
    def __getitem__(self, index: int | slice) -> Item[T] | Sequence[Item[T]]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item[T]]:
        return iter(self._items)

    @property
    def unanswered(self) -> list[Item[T]]:
        """The rows that have no answer yet."""
        return [item for item in self._items if not item.answered]

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0; None for never."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the whole call should end: its time is up, or the worker stops. One row that an
        operator cancels is told by its own context."""
        return self._cancelled

    def wait_cancelled(self, timeout: float) -> bool:
        """For handlers in threads: sleeps `timeout` seconds, or until cancelled; says which."""
        return self._stop.wait(timeout)

    def cancel(self) -> None:
        """Called by the worker: asks the handler to end."""
        self._cancelled = True
        self._stop.set()

    def __repr__(self) -> str:
        return f"<Batch of {len(self)}>"
