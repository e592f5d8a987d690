"""The command line, `worker VERB ...`. A verb is one file here, with its command as `command`.

stdout carries data, stderr everything else. Every error of ours is told in its own words and ends
the process with its `exit_code`; anything unexpected is one line and code 1, its traceback with
`--debug`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from worker.cli.common.collector import while_loading
from worker.cli.common.command import Invocation, Verbs
from worker.cli.common.terminal import say
from worker.errors import DuerowError

INTERRUPTED = 130


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from flags, then DUEROW_* variables, then [tool.duerow] in "
    "pyproject.toml: worker config show --origins",
)
@click.version_option(package_name="duerow", prog_name="worker", message="%(prog)s %(version)s")
def worker() -> None:
    """Runs rows that fall due in Postgres."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The program: parses `argv` (default: the process's arguments), runs the verb, exits."""
    while_loading()
    code = invoke(sys.argv[1:] if argv is None else argv)
    sys.exit(_flushed(code))


def invoke(argv: Sequence[str]) -> int:
    """Runs one verb; the exit code."""
    invocation = Invocation()
    try:
        result = worker.main(list(argv), "worker", standalone_mode=False, obj=invocation)
    except DuerowError as error:
        say(str(error), error=True)
        _show_traceback(invocation)
        return error.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        say(_unexpected(error), error=True)
        _show_traceback(invocation)
        return 1
    return result if isinstance(result, int) else 0


def _unexpected(error: Exception) -> str:
    from worker.url import redact

    told = " ".join(redact(f"{type(error).__name__}: {error}").split())
    return f"{told}\n  next: run again with --debug"


def _show_traceback(invocation: Invocation) -> None:
    if invocation.debug:
        import traceback

        from worker.url import redact

        say(redact(traceback.format_exc()))


def _flushed(code: int) -> int:
    """Writes out what is buffered. A reader that has gone is not an error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
