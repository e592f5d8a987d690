"""`worker resume`: what was paused is claimed again."""

from __future__ import annotations

from worker.cli.common.command import command as verb
from worker.cli.common.database import ask, session, url_option
from worker.cli.common.operator import Deed, deed_options
from worker.cli.common.output import json_option, show_record
from worker.cli.common.scope import Where, scope_options
from worker.cli.common.terminal import say


@verb("resume")
@scope_options
@deed_options
@url_option
@json_option
def command(where: Where, deed: Deed, database_url: str | None, as_json: bool) -> None:
    """Claim from a queue, kind or tenant again that was paused."""
    with session(database_url) as connection:
        found = ask(connection, "operate/resume", *where, *deed)
    if not found:
        say(f"{where} was not paused")
    since = found[0]["paused_at"] if found else None
    show_record({**where._asdict(), "was_paused_at": since}, as_json=as_json)
