"""What a user's module holds: the app, with its handlers."""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from worker.batching import Batching
from worker.errors import RegistrationError
from worker.events import Observer
from worker.fair import Fair
from worker.job import Job
from worker.limit import Breaker, Limit, Limits, per_second, scope_of
from worker.recurrence import Recurrence
from worker.redrive import Redrive
from worker.registry import Handler, Registry, build_handler
from worker.retry import RetryPolicy
from worker.schedules.schedule import CatchUp, Overlap, Schedule
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
        self.limits = Limits()
        self.schedules: dict[str, Schedule] = {}
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

    def batch(
        self,
        kind: str,
        /,
        *,
        size: int = 50,
        wait: float | dt.timedelta = 0.0,
        by_tenant: bool = False,
        then: Literal["again", "singly"] = "again",
        queue: str = "default",
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        redrive: Redrive | None = None,
        fair: Fair | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]:
        """Registers a function that takes several jobs of a kind in one call.

            @app.batch("track", size=50, wait=0.2)
            async def track(parcels: Batch[Parcel]) -> None: ...

        Each row has to be answered: see Batch. size, wait, by_tenant, then: see Batching.
        timeout: seconds that one call may take. The others as for `handler`.
        Raises RegistrationError where the function could not work as a handler.
        """
        batching = Batching(size, _seconds(wait), by_tenant, then)

        def register(function: Callable[P, R]) -> Task[P, R]:
            if isinstance(function, Task):
                function = function._function
            handler = build_handler(
                kind,
                function,
                queue=queue,
                retry=retry,
                timeout=timeout,
                redrive=redrive,
                fair=fair,
                batching=batching,
            )
            self.registry.add(handler)
            return Task(function, handler)

        return register

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
        batch: int | Batching | None = None,
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
        batch: how many rows one call takes, or a Batching that says more; the handler then takes a
            Batch of rows, each to be answered, instead of one row.
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
        batching = Batching(batch) if isinstance(batch, int) else batch
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
                batching=batching,
            )
            self.registry.add(handler)
            return Task(function, handler)

        return register

    def limit(
        self,
        *,
        queue: str | None = None,
        kind: str | None = None,
        tenant: str | None = None,
        each_tenant: bool = False,
        rate: float | None = None,
        per: float | dt.timedelta = 1.0,
        burst: int | None = None,
        concurrency: int | None = None,
    ) -> None:
        """Limits what the whole fleet, however many workers, runs of a queue, kind or tenant.

            app.limit(kind="send", rate=50, burst=10)
            app.limit(kind="send", each_tenant=True, concurrency=3)

        An adopted table is a queue and a kind by its name. Several limits may hold for a row; all
        of them do. What an operator sets outranks it (`worker limits set`).

        rate: rows that may start in `per` (a second, unless said). burst: how many of them at once
            after a rest; default: a tenth of the rate a second.
        concurrency: rows that may run at once.
        each_tenant: each tenant has this limit for itself.
        Raises RegistrationError.
        """
        scope = scope_of(queue, kind, tenant, each_tenant)
        given = None if rate is None else per_second(rate, per)
        self.limits.limit(scope, Limit(given, burst, concurrency))

    def breaker(
        self,
        *,
        queue: str | None = None,
        kind: str | None = None,
        tenant: str | None = None,
        each_tenant: bool = False,
        failures: int | None = 10,
        share: float | None = None,
        runs: int = 10,
        window: float | dt.timedelta = 60.0,
        pause: float | dt.timedelta = 60.0,
    ) -> None:
        """Leaves the outside alone, on all workers, after so many `failures` in a row, or when such
        a `share` of the runs in the last `window` failed, of which there were at least `runs`.
        After `pause` one row tries; what becomes of it closes the breaker, or opens it again.

        A failure is an error that the handler raised, or its timeout; not a row that it declared
        dead, cancelled, snoozed or throttled, nor a payload that did not fit.
        Raises RegistrationError.
        """
        scope = scope_of(queue, kind, tenant, each_tenant)
        self.limits.breaker(
            scope, Breaker(failures, share, runs, _seconds(window), _seconds(pause))
        )

    @overload
    def schedule(
        self,
        when_or_name: str | None = None,
        /,
        *,
        kind: None = None,
        name: str | None = None,
        cron: str | None = None,
        every: float | dt.timedelta | None = None,
        at: dt.datetime | None = None,
        tz: str = "UTC",
        args: Mapping[str, Any] | None = None,
        tick_as: str | None = None,
        queue: str | None = None,
        priority: int = 0,
        tenant: str | None = None,
        max_attempts: int | None = None,
        catch_up: CatchUp = "one",
        catch_up_limit: int = 100,
        overlap: Overlap | None = None,
        jitter: float | dt.timedelta = 0.0,
    ) -> Callable[[Task[P, R]], Task[P, R]]: ...

    @overload
    def schedule(
        self,
        when_or_name: str | None = None,
        /,
        *,
        kind: str,
        name: str | None = None,
        cron: str | None = None,
        every: float | dt.timedelta | None = None,
        at: dt.datetime | None = None,
        tz: str = "UTC",
        args: Mapping[str, Any] | None = None,
        tick_as: str | None = None,
        queue: str | None = None,
        priority: int = 0,
        tenant: str | None = None,
        max_attempts: int | None = None,
        catch_up: CatchUp = "one",
        catch_up_limit: int = 100,
        overlap: Overlap | None = None,
        jitter: float | dt.timedelta = 0.0,
    ) -> Schedule: ...

    def schedule(
        self,
        when_or_name: str | None = None,
        /,
        *,
        kind: str | None = None,
        name: str | None = None,
        args: Mapping[str, Any] | None = None,
        **says: Any,
    ) -> Any:
        """Enqueues a job at each tick of a schedule.

            @app.schedule("0 9 * * mon", tz="Europe/Berlin")
            @app.handler("report")
            async def report() -> None: ...

            app.schedule("nightly", cron="0 3 * * *", kind="cleanup", args={"days": 30})

        Above a handler it schedules that one; with `kind` it is called by itself, and gives the
        Schedule. The text is a cron expression; beside `cron`, `every` or `at` it is the name.
        name: default: the kind. Everything else: see Schedule.
        Raises RegistrationError or PayloadInvalid for what could never work.
        """
        timed = any(says.get(given) is not None for given in ("cron", "every", "at"))
        if when_or_name is not None and not isinstance(when_or_name, str):
            raise RegistrationError(
                "a schedule must say when",
                why="@app.schedule stands there without arguments",
                hint='@app.schedule("0 9 * * mon", tz="Europe/Berlin")',
            )
        if timed:
            name = name or when_or_name
        else:
            says["cron"] = when_or_name

        def add(kind: str) -> Schedule:
            schedule = Schedule(name or kind, kind=kind, args=args or {}, **says)
            if kind in self.registry:
                schedule.for_handler(self.registry.get(kind))
            if schedule.name in self.schedules:
                raise RegistrationError(
                    f"there are two schedules {schedule.name!r}",
                    why=f"both stand in the code, of kinds {self.schedules[schedule.name].kind!r} "
                    f"and {kind!r}",
                    hint="give one of them another name: @app.schedule(..., name='...')",
                )
            self.schedules[schedule.name] = schedule
            return schedule

        if kind is not None:
            return add(kind)

        def register(task: Task[P, R]) -> Task[P, R]:
            if not isinstance(task, Task):
                raise RegistrationError(
                    f"{getattr(task, '__name__', 'this')!r} cannot be scheduled: it is no handler",
                    why="decorators are applied from below",
                    hint="put @app.schedule(...) above @app.handler(...)",
                )
            add(task.kind)
            return task

        return register

    def scheduled(self) -> list[Schedule]:
        """Every schedule, each in the queue of its handler. Raises RegistrationError or
        PayloadInvalid where one does not fit the handler of its kind."""
        return [
            schedule.for_handler(self.registry.get(schedule.kind))
            if schedule.kind in self.registry
            else schedule
            for schedule in self.schedules.values()
        ]

    def observe(self, observer: Observer) -> Observer:
        """Calls `observer` with every event of this app's workers; usable as a decorator."""
        self.observers = (*self.observers, observer)
        return observer


def _seconds(duration: float | dt.timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, dt.timedelta) else float(duration)
