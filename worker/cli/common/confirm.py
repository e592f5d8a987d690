"""What cannot be taken back is asked for first, on a terminal; elsewhere it needs --yes."""

from __future__ import annotations

import sys

import click

from worker.cli.common.terminal import is_terminal
from worker.errors import UsageError

yes_option = click.option("--yes", is_flag=True, help="Do not ask. Needed off a terminal.")


def confirm(what: str, *, yes: bool) -> None:
    """Returns if it is to be done. Raises UsageError for a no, and where nobody can be asked."""
    if yes:
        return
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise UsageError(
            f"this would {what}", why="nobody can be asked here", hint="add --yes to do it"
        )
    if not click.confirm(f"This will {what}. Go on?", err=True):
        raise UsageError("nothing was done")
