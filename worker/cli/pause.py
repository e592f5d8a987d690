"""`worker pause`: nothing of a queue, kind or tenant is claimed any more."""

from __future__ import annotations

from worker.cli.common.command import command as verb
from worker.cli.common.database import ask, session, url_option
from worker.cli.common.operator import Deed, deed_options
from worker.cli.common.output import json_option, show_record
from worker.cli.common.scope import Where, scope_options
from worker.cli.common.terminal import say


@verb("pause")
@scope_options
@deed_options
@url_option
@json_option
def command(where: Where, deed: Deed, database_url: str | None, as_json: bool) -> None:
    """Claim nothing more of a queue, kind or tenant. What runs goes on.

    Two of them mean what they have in common. An adopted table is a queue by its name.
    """
    with session(database_url) as connection:
        [found] = ask(connection, "operate/pause", *where, *deed)
    if not found.pop("known"):
        say(f"no job and no worker names {where}; it is paused all the same")
    if not found.pop("changed"):
        say(f"{where} was paused already")
    show_record(found, as_json=as_json)
