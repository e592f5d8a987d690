"""`worker queues`: look at them, pause and resume them."""

from __future__ import annotations

import click

from worker.cli.common.command import group
from worker.cli.common.database import ask, session, url_option
from worker.cli.common.operator import Deed, deed_options
from worker.cli.common.output import json_option, show_record, show_rows
from worker.cli.common.terminal import say

COLUMNS = (
    "queue", "due", "scheduled", "retrying", "running", "oldest_due", "workers", "paused_at",
    "paused_by", "reason",
)  # fmt: skip


@group("queues")
def command() -> None:
    """List queues, pause and resume them."""


@command.command("list")
@url_option
@json_option
def list_(database_url: str | None, as_json: bool) -> None:
    """List the queues that have jobs, are served, or are paused. `oldest_due` is in seconds."""
    with session(database_url) as connection:
        show_rows(ask(connection, "operate/queues"), COLUMNS, as_json=as_json)


@command.command("pause")
@click.argument("queue")
@deed_options
@url_option
@json_option
def pause(queue: str, deed: Deed, database_url: str | None, as_json: bool) -> None:
    """Claim nothing more from QUEUE. What runs goes on."""
    with session(database_url) as connection:
        [found] = ask(connection, "operate/pause", queue, None, None, *deed)
    if not found.pop("known"):
        say(f"no job and no worker names the queue {queue!r}; it is paused all the same")
    if not found.pop("changed"):
        say(f"queue {queue!r} was paused already")
    show_record(_of_queue(found), as_json=as_json)


@command.command("resume")
@click.argument("queue")
@deed_options
@url_option
@json_option
def resume(queue: str, deed: Deed, database_url: str | None, as_json: bool) -> None:
    """Claim from QUEUE again."""
    with session(database_url) as connection:
        found = ask(connection, "operate/resume", queue, None, None, *deed)
    if not found:
        say(f"queue {queue!r} was not paused")
    since = found[0]["paused_at"] if found else None
    show_record({"queue": queue, "was_paused_at": since}, as_json=as_json)


def _of_queue(found: dict[str, object]) -> dict[str, object]:
    """Without the parts of a scope that a queue's pause does not have."""
    return {name: value for name, value in found.items() if name not in ("kind", "tenant")}
