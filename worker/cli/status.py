"""`worker status`: the whole at a glance, as a check, or watched."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from worker.cli.common.command import command as verb
from worker.cli.common.database import ask, session, url_option
from worker.cli.common.output import json_option, show_record, show_rows
from worker.cli.common.parameters import duration
from worker.cli.common.terminal import is_terminal, say

if TYPE_CHECKING:
    import psycopg

CHECK_FAILED = 8
HOME_AND_CLEAR = "\x1b[H\x1b[J"


@verb("status")
@click.option("--check", is_flag=True, help="Exit with 8 and say what is wrong, if anything is.")
@click.option(
    "--max-lag", type=duration, default="5m", show_default=True,
    help="For --check: longest that a due row may wait.",
)  # fmt: skip
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option("--every", type=duration, default="2s", show_default=True, help="For --watch.")
@url_option
@json_option
def command(
    check: bool, max_lag: float, watch: bool, every: float, database_url: str | None, as_json: bool
) -> int:
    """Show what is due, running and dead, and who works. Durations are in seconds."""
    with session(database_url) as connection:
        if watch:
            _watch(connection, every, as_json=as_json)
            return 0
        status = _status(connection)
    show_record(status, as_json=as_json)
    troubles = _troubles(status, max_lag) if check else []
    for trouble in troubles:
        say(trouble, error=True)
    return CHECK_FAILED if troubles else 0


def _status(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    [status] = ask(connection, "operate/status")
    unclaimed = ask(connection, "chores/unclaimed")
    return {**status, "unclaimed": [f"{row['kind']} in {row['queue']}" for row in unclaimed]}


def _troubles(status: dict[str, Any], max_lag: float) -> list[str]:
    """What is wrong, each with the next command."""
    found = []
    if not status["workers"]:
        found.append("no worker is alive\n  next: worker run")
    if status["oldest_due"] is not None and status["oldest_due"] > max_lag:
        found.append(
            f"a row has been due for {status['oldest_due']:.0f} s, longer than {max_lag:.0f} s\n"
            "  next: worker queues list"
        )
    if status["workers"] and status["unclaimed"]:
        listed = ", ".join(status["unclaimed"])
        found.append(
            f"no live worker runs these kinds: {listed}\n"
            "  next: deploy a worker whose app registers them"
        )
    if status["unreadable"]:
        found.append(
            f"adopted tables that cannot be read: {', '.join(status['unreadable'])}\n"
            "  next: worker tables check"
        )
    return found


def _watch(connection: psycopg.Connection[Any], every: float, *, as_json: bool) -> None:
    """On a terminal in place; in a pipe a line each time."""
    in_place = is_terminal(sys.stdout) and os.environ.get("TERM") != "dumb" and not as_json
    header = True
    try:
        while True:
            status = _status(connection)
            if in_place:
                sys.stdout.write(HOME_AND_CLEAR)
                show_record(status, as_json=False)
            else:
                show_rows([status], tuple(status), as_json=as_json, header=header)
                header = False
            sys.stdout.flush()
            time.sleep(every)
    except KeyboardInterrupt:
        return
