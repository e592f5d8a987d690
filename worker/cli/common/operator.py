"""Who did it and why: recorded with whatever an operator changes."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def deed_options(function: F) -> F:
    """--reason and --by."""
    by = click.option(
        "--by", envvar="DUEROW_ACTOR", metavar="NAME", help="Who does it.  [default: user@host]"
    )
    reason = click.option("--reason", help="Why; recorded with it.")
    return reason(by(function))


def actor(by: str | None) -> str:
    """`by`, or the user of this process."""
    if by:
        return by
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an id without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
