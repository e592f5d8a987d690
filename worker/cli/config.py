"""`worker config`: the settings, and where each was said."""

from __future__ import annotations

from typing import Any

import click

from worker.cli.common.command import command as verb
from worker.cli.common.command import group
from worker.cli.common.output import json_option, show_record, show_rows
from worker.cli.common.settings_flags import SettingsCommand
from worker.cli.common.terminal import say


@group("config")
def command() -> None:
    """Show the settings."""


@verb("show", cls=SettingsCommand)
@click.option("--origins", is_flag=True, help="Where each was said.")
@json_option
def show(origins: bool, as_json: bool, **flags: Any) -> None:
    """Show every setting as a worker started here would have it. Passwords are masked."""
    from worker.settings import Settings, setting_rows

    settings = Settings.load(**flags)
    for warning in settings.warnings:
        say(f"warning: {warning}")
    rows = setting_rows(settings)
    if as_json and not origins:
        show_record({row.name: row.value for row in rows}, as_json=True)
        return
    columns = ("name", "value", "origin", "about") if origins else ("name", "value")
    shown = [{name: getattr(row, name) for name in columns} for row in rows]
    show_rows(shown, columns[:3], as_json=as_json)


command.add_command(show)
