"""Whether a command that somebody wrote down is one that `worker` has."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from worker.cli import worker

OPTION = re.compile(r"--?[a-z][a-z-]*")


def unknown(words: Sequence[str]) -> str | None:
    """The first verb or option of `worker ...` that does not exist. Values and arguments are not
    looked at."""
    command: click.Command = worker
    context = click.Context(worker, info_name="worker")
    left = list(words[1:])
    while left and isinstance(command, click.Group):
        word = left.pop(0)
        if word.startswith("-"):
            return None if word in _options(command, context) else word
        found = command.get_command(context, word)
        if found is None:
            return word
        command, context = found, click.Context(found, parent=context, info_name=word)
    if command.context_settings.get("ignore_unknown_options"):
        return None  # they are another program's
    known = _options(command, context)
    named = (word.partition("=")[0] for word in left if OPTION.fullmatch(word.partition("=")[0]))
    return next((word for word in named if word not in known), None)


def _options(command: click.Command, context: click.Context) -> set[str]:
    return {
        name
        for parameter in command.get_params(context)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
