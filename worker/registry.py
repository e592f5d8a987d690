"""Which handler runs which kind."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_type_hints

from worker.batching import Batching
from worker.errors import RegistrationError, UnknownKind
from worker.fair import Fair
from worker.outcome import storable
from worker.payload import ASYNC_SESSIONS, Signature, read_signature
from worker.recurrence import Recurrence
from worker.redrive import Redrive
from worker.retry import RetryPolicy
from worker.rowtype import RowType
from worker.tables.spec import TableSpec

Function = Callable[..., Any] | Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Adopted:
    """What a handler of a user's own table says of it.

    row: the parameter that takes the row, in the shape of `row_type`.
    """

    spec: TableSpec
    recurrence: Recurrence
    row: str
    row_type: RowType


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered function.

    timeout: seconds one run may take, or None for the worker's default, or 0 for no limit.
    table: the adopted table whose rows it runs; None for jobs.
    redrive: when its dead rows are run again; None for never.
    fair: how tenants take turns; None for the order of due times, whoever's a row is.
    batching: how its rows are put together, if it takes several at once.
    """

    kind: str
    function: Function
    queue: str
    signature: Signature
    retry: RetryPolicy
    timeout: float | None
    is_async: bool
    table: Adopted | None = None
    redrive: Redrive | None = None
    fair: Fair | None = None
    batching: Batching | None = None


def build_handler(
    kind: str,
    function: Function,
    *,
    queue: str,
    retry: RetryPolicy | None,
    timeout: float | None,
    redrive: Redrive | None = None,
    fair: Fair | None = None,
    spec: TableSpec | None = None,
    recurrence: Recurrence | None = None,
    batching: Batching | None = None,
) -> Handler:
    """Raises RegistrationError where the function could not work as a handler."""
    _check_name("kind", kind)
    _check_name("queue", queue)
    _check_options(kind, retry, timeout, redrive)
    _check_fair(kind, fair, spec)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise RegistrationError(
            f"handler of {kind!r} is a generator",
            why="calling it runs nothing",
            hint="take the `yield` out; what a handler returns is its result",
        )
    signature = read_signature(kind, function, of_rows=spec is not None)
    _check_batch(kind, signature, batching)
    is_async = inspect.iscoroutinefunction(function)
    wants = signature.session_kind
    if wants is not None and (wants in ASYNC_SESSIONS) is not is_async:
        have, need = ("async def", "def") if is_async else ("def", "async def")
        raise RegistrationError(
            f"handler of {kind!r} is `{have}` but asks for a {wants} session",
            why="that session would block the event loop" if is_async else "it needs an event loop",
            hint=f"write it as `{need}`, or ask for the session's twin",
        )
    table = None
    if spec is not None:
        table = _adopted(spec, recurrence or Recurrence(), function, signature)
    retry = retry or RetryPolicy()
    return Handler(
        kind,
        function,
        queue,
        signature,
        retry,
        timeout,
        is_async,
        table,
        redrive,
        fair,
        batching,
    )


def _adopted(
    spec: TableSpec, recurrence: Recurrence, function: Function, signature: Signature
) -> Adopted:
    if signature.batch is not None:
        return Adopted(spec, recurrence, signature.batch, RowType(spec.name, signature.item))
    if len(signature.fields) != 1 or signature.open_ended:
        raise RegistrationError(
            f"the handler of table {spec.name!r} takes {len(signature.fields)} arguments",
            why="it is given its row, and if it asks for them a session and the context",
            hint="take the row as one argument: async def charge(row: Donation, ...)",
        )
    [row] = signature.fields
    annotation = get_type_hints(function, include_extras=True).get(row, dict)
    return Adopted(spec, recurrence, row, RowType(spec.name, annotation))


def _check_batch(kind: str, signature: Signature, batching: Batching | None) -> None:
    if batching is not None and signature.batch is None:
        raise RegistrationError(
            f"the handler of {kind!r} is to take several rows at once, and has no place for them",
            hint="async def track(parcels: Batch[Parcel], ...)",
        )
    if batching is None and signature.batch is not None:
        raise RegistrationError(
            f"the handler of {kind!r} takes a batch, and is registered for single rows",
            hint='@app.batch("track", size=50), or @app.rows("orders", ..., batch=50)',
        )


def _check_name(what: str, name: str) -> None:
    if not 1 <= len(name) <= 200:
        raise RegistrationError(f"a {what} is 1 to 200 characters long, not {len(name)}")
    if storable(name) != name:
        raise RegistrationError(f"the {what} {name!r} holds what Postgres cannot store")


def _check_options(kind: str, retry: object, timeout: object, redrive: object) -> None:
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise RegistrationError(
            f"handler of {kind!r}: retry is a {type(retry).__name__}",
            hint="retry=RetryPolicy(stop=tenacity.stop_after_attempt(5))",
        )
    if redrive is not None and not isinstance(redrive, Redrive):
        raise RegistrationError(
            f"handler of {kind!r}: redrive is a {type(redrive).__name__}",
            hint="redrive=Redrive(after=timedelta(hours=24), times=3)",
        )
    if timeout is None:
        return
    if not isinstance(timeout, int | float):
        raise RegistrationError(
            f"handler of {kind!r}: timeout is a {type(timeout).__name__}", hint="give seconds"
        )
    if not timeout >= 0:
        raise RegistrationError(f"handler of {kind!r}: timeout={timeout} is not 0 or more seconds")


def _check_fair(kind: str, fair: object, spec: TableSpec | None) -> None:
    if fair is None:
        return
    if not isinstance(fair, Fair):
        raise RegistrationError(
            f"handler of {kind!r}: fair is a {type(fair).__name__}",
            hint="fair=Fair(per_tenant=10)",
        )
    if spec is not None and spec.tenant is None:
        raise RegistrationError(
            f"table {kind!r}: per_tenant is said, and no tenant",
            why="rows of one tenant are those with the same value in the tenant's column",
            hint="@app.rows(..., tenant='org_id', per_tenant=10)",
        )
    if spec is not None and spec.order is not None:
        raise RegistrationError(
            f"table {kind!r}: per_tenant and order are both said",
            why="within a tenant rows are taken by their due times",
            hint="leave one of them out",
        )


class Registry:
    """The handlers of one app, by kind."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def add(self, handler: Handler) -> None:
        """Raises RegistrationError for a kind that has a handler."""
        other = self._handlers.get(handler.kind)
        if other is not None:
            raise RegistrationError(
                f"kind {handler.kind!r} has two handlers",
                why=f"{_where(other.function)} and {_where(handler.function)}",
                hint="give one of them another name: @app.handler('...')",
            )
        self._handlers[handler.kind] = handler

    def get(self, kind: str) -> Handler:
        """Raises UnknownKind."""
        try:
            return self._handlers[kind]
        except KeyError:
            known = ", ".join(sorted(self._handlers)) or "none"
            raise UnknownKind(
                f"no handler is registered for kind {kind!r}",
                why=f"this app registers: {known}",
                hint="check the spelling, or import the module that registers it",
            ) from None

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def __len__(self) -> int:
        return len(self._handlers)

    def __contains__(self, kind: object) -> bool:
        return kind in self._handlers

    @property
    def jobs(self) -> list[Handler]:
        """The handlers of jobs."""
        return [handler for handler in self if handler.table is None]

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue that a handler names; an adopted table is one of its own."""
        return tuple(sorted({handler.queue for handler in self}))


def _where(function: Function) -> str:
    return f"{function.__module__}.{function.__qualname__}"
