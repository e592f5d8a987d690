"""Every setting is a flag of the verbs that start a worker: `poll_max` is `--poll-max`."""

from __future__ import annotations

from functools import cache
from typing import Any

import click

from worker.cli.common.command import Command

SHORT = {"queues": "-q", "concurrency": "-c"}


class SettingsCommand(Command):
    """A verb that takes every setting as a flag, next to its own options.

    The flags are made when the verb is called: to know the settings takes a third of a second.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        return [*own[:-2], *flags(), *own[-2:]]  # --debug and --help last


@cache
def flags() -> tuple[click.Option, ...]:
    from worker.settings import Settings
    from worker.settings.table import shown

    return tuple(
        _flag(name, field.annotation, field.description or "", shown(field.default))
        for name, field in Settings.model_fields.items()
    )


def _flag(name: str, annotation: Any, about: str, default: str) -> click.Option:
    spelled = f"--{name.replace('_', '-')}"
    options: dict[str, Any] = {"default": None, "help": f"{about}  [default: {default}]"}
    if annotation is bool:
        return click.Option([f"{spelled}/--no-{spelled[2:]}"], **options)
    declared = [SHORT[name], spelled] if name in SHORT else [spelled]
    return click.Option([*declared, name], metavar=_metavar(name, annotation), **options)


def _metavar(name: str, annotation: Any) -> str:
    if name.endswith("_url"):
        return "URL"
    if "int" in str(annotation):
        return "N"
    return "DURATION" if "float" in str(annotation) else "TEXT"
