"""Who did it and why: recorded with whatever an operator changes."""

from __future__ import annotations

import functools
import getpass
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Deed(NamedTuple):
    """Of an operator, in the order in which the statements take it."""

    by: str
    reason: str | None


def deed_options(function: F) -> F:
    """Adds --reason and --by, and hands them over as one argument, `deed`."""

    @click.option("--reason", help="Why; recorded with it.")
    @click.option(
        "--by", envvar="DUEROW_ACTOR", metavar="NAME", help="Who does it.  [default: user@host]"
    )
    @functools.wraps(function)
    def with_deed(reason: str | None, by: str | None, **others: Any) -> Any:
        return function(deed=Deed(by or _user(), reason), **others)

    return with_deed  # type: ignore[return-value]  # click's options keep no signature


def _user() -> str:
    """Of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an id without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
