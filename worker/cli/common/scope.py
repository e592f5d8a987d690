"""--queue, --kind and --tenant: which rows a deed is about."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click

from worker.errors import UsageError
from worker.scope import EACH, Scope

F = TypeVar("F", bound=Callable[..., Any])


class Where(NamedTuple):
    """A scope, in the order in which the statements take it."""

    queue: str | None
    kind: str | None
    tenant: str | None

    def __str__(self) -> str:
        return str(Scope(*self))


def scope_options(function: F) -> F:
    """Adds the three flags, and hands them over as one argument, `where`."""

    @click.option("-q", "--queue", help="Rows of this queue; an adopted table is one.")
    @click.option("-k", "--kind", help="Rows of this kind.")
    @click.option("--tenant", help="Rows of this tenant; '*': each tenant's, for itself.")
    @functools.wraps(function)
    def with_scope(queue: str | None, kind: str | None, tenant: str | None, **others: Any) -> Any:
        where = Where(queue, kind, tenant)
        if where == (None, None, None) or (tenant == EACH and queue is None and kind is None):
            raise UsageError(
                "it is not said which rows are meant",
                why="without --queue, --kind and --tenant it would be all of them",
                hint="worker queues list",
            )
        return function(where=where, **others)

    return with_scope  # type: ignore[return-value]  # click's options keep no signature
