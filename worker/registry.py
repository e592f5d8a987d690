"""Which handler runs which kind."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from worker.errors import RegistrationError, UnknownKind
from worker.payload import ASYNC_SESSIONS, Signature, read_signature
from worker.retry import RetryPolicy

Function = Callable[..., Any] | Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered function.

    timeout: seconds one run may take, or None for the worker's default, or 0 for no limit.
    """

    kind: str
    function: Function
    queue: str
    signature: Signature
    retry: RetryPolicy
    timeout: float | None
    is_async: bool


def build_handler(
    kind: str,
    function: Function,
    *,
    queue: str,
    retry: RetryPolicy | None,
    timeout: float | None,
) -> Handler:
    """Raises RegistrationError where the function could not work as a handler."""
    if not kind or len(kind) > 200:
        raise RegistrationError(f"a kind is 1 to 200 characters long, not {len(kind)}")
    if timeout is not None and timeout < 0:
        raise RegistrationError(f"handler of {kind!r}: timeout={timeout} is below 0")
    signature = read_signature(kind, function)
    is_async = inspect.iscoroutinefunction(function)
    wants = signature.session_kind
    if wants is not None and (wants in ASYNC_SESSIONS) is not is_async:
        have, need = ("async def", "def") if is_async else ("def", "async def")
        raise RegistrationError(
            f"handler of {kind!r} is `{have}` but asks for a {wants} session",
            why="that session would block the event loop" if is_async else "it needs an event loop",
            hint=f"write it as `{need}`, or ask for the session's twin",
        )
    return Handler(kind, function, queue, signature, retry or RetryPolicy(), timeout, is_async)


class Registry:
    """The handlers of one app, by kind."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def add(self, handler: Handler) -> None:
        other = self._handlers.get(handler.kind)
        if other is not None:
            raise RegistrationError(
                f"kind {handler.kind!r} has two handlers",
                why=f"{_where(other.function)} and {_where(handler.function)}",
                hint="give one of them another name: @app.handler('...')",
            )
        self._handlers[handler.kind] = handler

    def get(self, kind: str) -> Handler:
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
    def queues(self) -> tuple[str, ...]:
        return tuple(sorted({handler.queue for handler in self}))


def _where(function: Function) -> str:
    return f"{function.__module__}.{function.__qualname__}"
