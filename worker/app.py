"""What a user's module holds: the app, with its handlers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, overload

from worker.events import Observer
from worker.job import Job
from worker.registry import Handler, Registry, build_handler
from worker.retry import RetryPolicy

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
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def handler(
        self,
        kind: str | Callable[P, R] | None = None,
        /,
        *,
        queue: str = "default",
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Registers a function as the handler of a kind (default: the function's name).

        timeout: seconds one run may take; 0 for no limit; default: the worker's `timeout`.
        retry: what follows a failure; default: 12 attempts, two seconds apart and doubling.
        Raises RegistrationError where the function could not work as a handler.
        """

        def register(function: Callable[P, R]) -> Task[P, R]:
            name = kind if isinstance(kind, str) else function.__name__
            handler = build_handler(name, function, queue=queue, retry=retry, timeout=timeout)
            self.registry.add(handler)
            return Task(function, handler)

        return register(kind) if callable(kind) else register

    def observe(self, observer: Observer) -> Observer:
        """Calls `observer` with every event of this app's workers; usable as a decorator."""
        self.observers = (*self.observers, observer)
        return observer
