"""What a user's module holds: the app, with its handlers."""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from worker.errors import RegistrationError
from worker.events import Observer
from worker.fair import Fair
from worker.job import Job
from worker.recurrence import Recurrence
from worker.redrive import Redrive
from worker.registry import Handler, Registry, build_handler
from worker.retry import RetryPolicy
from worker.tables.spec import TableSpec

P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """A function that was registered as a handler. Calling it calls the function, as in a test."""

    def __init__(self, function: Callable[P, R], handler: Handler) -> None:
        self._function = function
        self.handler = handler
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    @property
    def kind(self) -> str:
        return self.handler.kind

    def job(self, args: Mapping[str, Any] | None = None, **options: Any) -> Job:
        """A job for this handler, for `worker.enqueue`; options as in `Job`.

        Raises PayloadInvalid where the arguments do not fit the handler's signature.
        """
        given = dict(args or {})
        self.handler.signature.write(given)
        return Job(self.kind, given, **{"queue": self.handler.queue, **options})


class App:
    """The handlers of one application, and who observes them.

        app = App()

        @app.handler("charge", queue="payments", timeout=30)
        async def charge(donation_id: int, session: asyncpg.Connection, context: Context):
            ...

    `worker run --app shop.jobs:app` runs what it holds.
    """

    def __init__(self) -> None:
        self.registry = Registry()
        self.observers: tuple[Observer, ...] = ()

    @overload
    def handler(self, kind: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def handler(
        self,
        kind: str | None = None,
        /,
        *,
        queue: str = "default",
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        redrive: Redrive | None = None,
        fair: Fair | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def handler(
        self,
        kind: str | Callable[P, R] | None = None,
        /,
        *,
        queue: str = "default",
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        redrive: Redrive | None = None,
        fair: Fair | None = None,
    ) -> Any:
        """Registers a function as the handler of a kind (default: the function's name).

        timeout: seconds one run may take; 0 for no limit; default: the worker's `timeout`.
        retry: what follows a failure; default: 12 attempts, two seconds apart and doubling.
        redrive: when a dead job is run again without anybody asking; default: never.
        fair: how tenants take turns; default: rows are taken as they fell due, whoever's they are.
        Raises RegistrationError where the function could not work as a handler.
        """

        def register(function: Callable[P, R]) -> Task[P, R]:
            if isinstance(function, Task):  # one function as the handler of two kinds
                function = function._function
            name = kind if isinstance(kind, str) else getattr(function, "__name__", "")
            handler = build_handler(
                name,
                function,
                queue=queue,
                retry=retry,
                timeout=timeout,
                redrive=redrive,
                fair=fair,
            )
            self.registry.add(handler)
            return Task(function, handler)

        return register(kind) if callable(kind) else register

    def rows(
        self,
        name: str,
        /,
        *,
        table: str | None = None,
        key: str | tuple[str, ...] = "id",
        due: str,
        where: str | None = None,
        tenant: str | None = None,
        per_tenant: int | Fair | None = None,
        order: str | None = None,
        every: float | dt.timedelta | None = None,
        from_: Literal["due", "now"] = "due",
        catch_up: bool = False,
        jitter: float | dt.timedelta = 0.0,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        redrive: Redrive | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]:
        """Registers a function as the handler of the due rows of a table that you already have.

            @app.rows("donations", due="next_charge_at", where="status = 'active'",
                      every=timedelta(days=30))
            async def charge(donation: Donation, context: Context) -> None: ...

        name: of the source, in logs, audits and `queues pause`; the table's name unless `table`
            says another ("shop.orders", '"Mixed Case"').
        key, due, where, tenant, order: see TableSpec.
        per_tenant: tenants take turns, with so many rows of one in one claim, or as Fair says; it
            needs the index that `worker tables add --tenant ... --per-tenant` makes.
        every, from_, catch_up, jitter: see Recurrence; durations in seconds or as timedelta. The
            handler may return the next due time itself, as a datetime or as a timedelta from now.
            With neither, a row that succeeded is never due again: its due column becomes null.
        retry, timeout, redrive: as for `handler`.
        Raises RegistrationError where the function could not work as a handler.
        """
        if name == "jobs":
            raise RegistrationError(
                "a source of rows cannot be called 'jobs'",
                why="that is the name of the built-in one, in audits and in the log of attempts",
                hint='@app.rows("my_jobs", table="jobs", ...)',
            )
        if not re.fullmatch(r"[\w.-]{1,100}", name):
            raise RegistrationError(
                f"{name!r} cannot be the name of a source",
                why="it stands in logs, commands and messages: letters, digits, _ . and - only",
                hint=f"@app.rows('donations', table={name!r}, ...)",
            )
        spec = TableSpec(
            name=name,
            table=table or name,
            key=(key,) if isinstance(key, str) else tuple(key),
            due=due,
            where=where,
            tenant=tenant,
            order=order,
            by_tenant=per_tenant is not None,
        )
        fair = Fair(per_tenant) if isinstance(per_tenant, int) else per_tenant
        recurrence = Recurrence(
            every=None if every is None else _seconds(every),
            from_=from_,
            catch_up=catch_up,
            jitter=_seconds(jitter),
        )

        def register(function: Callable[P, R]) -> Task[P, R]:
            handler = build_handler(
                name,
                function,
                queue=name,
                retry=retry,
                timeout=timeout,
                redrive=redrive,
                fair=fair,
                spec=spec,
                recurrence=recurrence,
            )
            self.registry.add(handler)
            return Task(function, handler)

        return register

    def observe(self, observer: Observer) -> Observer:
        """Calls `observer` with every event of this app's workers; usable as a decorator."""
        self.observers = (*self.observers, observer)
        return observer


def _seconds(duration: float | dt.timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, dt.timedelta) else float(duration)
