"""`worker audit`: the queries of sql/audit/, each with its parameters as flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from worker.cli.common.command import Command, Group, group
from worker.cli.common.database import session, url_option
from worker.cli.common.output import json_option, show_rows, show_text
from worker.errors import NotFound

if TYPE_CHECKING:
    from worker.audit import AuditQuery


@group("audit")
def command() -> None:
    """Ask the tables what happened: list, show, run."""


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the queries and what each answers."""
    from worker.audit import queries

    found = [{"name": asked.name, "question": asked.question} for asked in queries()]
    show_rows(found, ("name", "question"), as_json=as_json)


@command.command("show")
@click.argument("name")
@click.option("--sql", is_flag=True, help="The query itself, for psql -f.")
def show(name: str, sql: bool) -> None:
    """Show what a query gives and takes."""
    from worker.audit import query

    asked = query(name)
    show_text(asked.sql if sql else asked.help)


class Queries(Group):
    """A command for each file in sql/audit/."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from worker.audit import queries

        return [asked.name for asked in queries()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from worker.audit import query

        try:
            return _command(query(cmd_name))
        except NotFound:
            return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-"):
            from worker.audit import query

            query(args[0])  # raises NotFound, with the nearest name
        return super().resolve_command(ctx, args)


command.add_command(Queries("run", help="Run a query: worker audit run NAME --PARAMETER VALUE."))


def _command(asked: AuditQuery) -> click.Command:
    def run(database_url: str | None, as_json: bool, **params: Any) -> None:
        from worker import audit

        with session(database_url) as connection:
            columns, rows = audit.run(connection, asked.name, **params)
        show_rows((dict(zip(columns, row, strict=True)) for row in rows), columns, as_json=as_json)

    made = Command(asked.name, callback=run, help=asked.question)
    for parameter in asked.parameters:
        default = f"  [default: {parameter.default}]" if parameter.default else ""
        made.params.append(
            click.Option([f"--{parameter.name}"], help=f"{parameter.about}{default}")
        )
    return json_option(url_option(made))
