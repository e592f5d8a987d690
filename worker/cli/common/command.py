"""Commands and groups as every verb has them: found by file, with --debug, with near names."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import click

Callback: TypeAlias = Callable[..., Any]

# In the order of a first day; a verb that is not listed comes after these.
ORDER = (
    "run", "drain", "demo", "init", "enqueue", "jobs", "queues", "pause", "resume", "limits",
    "schedules", "tables", "rows", "workers", "status", "audit", "doctor", "db",
    "config", "web", "bench",
)  # fmt: skip


@dataclass(slots=True)
class Invocation:
    """What holds for the whole run of the program."""

    debug: bool = False


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and isinstance(ctx.obj, Invocation):
        ctx.obj.debug = True


class Command(click.Command):
    """A verb: takes --debug wherever it stands."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), _debug_option()]


class Group(click.Group):
    """Verbs under a noun; a mistyped one is answered with the nearest."""

    command_class = Command

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), _debug_option()]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{meant}")
        return super().resolve_command(ctx, args)


class Verbs(Group):
    """The top level: each module of worker.cli is a verb, imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        import worker.cli

        names = [m.name for m in pkgutil.iter_modules(worker.cli.__path__) if not m.ispkg]
        return sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"worker.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_set_debug,
        help="Show the traceback of an error.",
    )


def command(name: str, cls: type[Command] = Command) -> Callable[[Callback], Command]:
    """click.command, with what all of ours have."""
    return click.command(name, cls=cls)


def group(name: str) -> Callable[[Callback], Group]:
    """click.group, likewise."""
    return click.group(name, cls=Group)
