"""`worker limits`: rates, concurrency and breakers of the whole fleet, changed while it runs."""

from __future__ import annotations

import click

from worker.cli.common.command import group
from worker.cli.common.database import ask, session, url_option
from worker.cli.common.operator import Deed, deed_options
from worker.cli.common.output import json_option, show_record, show_rows
from worker.cli.common.parameters import duration, rate
from worker.cli.common.scope import Where, scope_options
from worker.cli.common.terminal import say
from worker.errors import RegistrationError, UsageError
from worker.limit import Breaker, Limit, Rules, checked_breaker, checked_limit

COLUMNS = (
    "queue", "kind", "tenant", "state", "until", "rate", "burst", "tokens", "concurrency", "in_use",
    "trip_after", "trip_share", "failures", "set_by", "by", "why",
)  # fmt: skip


@group("limits")
def command() -> None:
    """Rates, concurrency and breakers of the fleet."""


@command.command("list")
@url_option
@json_option
def list_(database_url: str | None, as_json: bool) -> None:
    """List what stands between due rows and the workers, pauses and throttles too."""
    with session(database_url) as connection:
        show_rows(ask(connection, "operate/gates"), COLUMNS, as_json=as_json)


@command.command("set")
@scope_options
@click.option("--rate", type=rate, help="Rows that may start, as 50/s, 600/m or 1000/h.")
@click.option("--burst", type=int, help="How many of them at once after a rest.  [a tenth]")
@click.option("--concurrency", type=int, help="Rows that may run at once.")
@click.option("--failures", type=int, help="So many in a row open the breaker.")
@click.option("--failing", type=float, help="Such a share of the runs opens it, as 0.5.")
@click.option("--window", type=duration, default="1m", show_default=True, help="For --failing.")
@click.option("--pause", type=duration, default="1m", show_default=True, help="Open for so long.")
@deed_options
@url_option
@json_option
def set_(
    where: Where,
    rate: float | None,
    burst: int | None,
    concurrency: int | None,
    failures: int | None,
    failing: float | None,
    window: float,
    pause: float,
    deed: Deed,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Set the limits and the breaker of a scope; what is left out is taken away.

    It outranks what the code says, until `worker limits remove`.
    """
    rules = _rules(Limit(rate, burst, concurrency), failures, failing, window, pause)
    with session(database_url) as connection:
        [found] = ask(connection, "operate/limit", *where, *rules.parameters(), *deed, False)
    found.pop("told")
    if not found.pop("changed"):
        say("it was set so already")
    show_record(found, as_json=as_json)


@command.command("remove")
@scope_options
@deed_options
@url_option
@json_option
def remove(where: Where, deed: Deed, database_url: str | None, as_json: bool) -> None:
    """Take a scope's limits and breaker away; the code's own come back when a worker starts."""
    with session(database_url) as connection:
        found = ask(connection, "operate/unlimit", *where, *deed)
    _show_scope(found, f"{where} has no limits", as_json=as_json)


@command.command("reset")
@scope_options
@deed_options
@url_option
@json_option
def reset(where: Where, deed: Deed, database_url: str | None, as_json: bool) -> None:
    """Close a scope's breaker now, and end its throttle."""
    with session(database_url) as connection:
        found = ask(connection, "operate/reset_breaker", *where, *deed)
    _show_scope(found, f"{where} has no open breaker and no throttle", as_json=as_json)


def _show_scope(found: list[dict[str, object]], none: str, *, as_json: bool) -> None:
    if not found:
        say(none)
        return
    found[0].pop("told")
    show_record(found[0], as_json=as_json)


def _rules(
    limit: Limit, failures: int | None, failing: float | None, window: float, pause: float
) -> Rules:
    try:
        breaker = None
        if failures is not None or failing is not None:
            breaker = checked_breaker(Breaker(failures, failing, window=window, pause=pause))
        if breaker is None or limit != Limit():
            limit = checked_limit(limit)
    except RegistrationError as error:
        raise UsageError(error.what, why=error.why, hint=error.hint) from None
    return Rules(limit, breaker)
