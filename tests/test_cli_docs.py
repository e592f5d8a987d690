"""docs/cli.md: every command on it runs, and it leaves out no verb and no flag."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import click
import pytest

from tests.cli import environment
from tests.facts import eventually
from worker.cli import invoke, worker
from worker.cli.common.settings_flags import flags

PAGE = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
ELSEWHERE = {"demo", "rows", "tables"}  # on pages of their own
UNTIL_STOPPED = ("worker run", "worker status --watch")
# What runs an app, replaces the process or reads a pipe; the others are called here: half a second
# less each.
PROCESSES = re.compile(r"worker (run|drain|db psql|status --watch)|.*\|")


@pytest.mark.process
def test_every_command_runs(
    here: Path,
    db_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the order of the page, in one directory and on one database."""
    bin = here / "bin"
    bin.mkdir()
    program = bin / "worker"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m worker "$@"\n')
    program.chmod(0o755)
    env = environment({"DATABASE_URL": db_url, "PATH": f"{bin}:{os.environ['PATH']}"})
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert len(COMMANDS) > 30
    with mock.patch.dict(os.environ, env, clear=True):
        for command in COMMANDS:
            expected = re.search(r"# exits with (\d+)", command)
            if PROCESSES.match(command):
                code, said = _run(command, here)
            else:
                code = invoke(shlex.split(command, comments=True)[1:])
                said = "".join(capsys.readouterr())
            assert code == (int(expected[1]) if expected else 0), f"$ {command}\n{said}"


def _run(command: str, cwd: Path) -> tuple[int, str]:
    """Its exit code, and everything that it showed."""
    log = cwd / "output"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}" if "|" not in command else command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            if command.startswith(UNTIL_STOPPED):
                eventually(log.read_text, within=60)
                process.send_signal(signal.SIGINT)
            code = process.wait(120)
        finally:
            process.kill()
    return code, log.read_text()


def _walk(group: click.Group, path: tuple[str, ...]) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if name in ELSEWHERE or path == ("audit", "run"):
            continue
        if isinstance(command, click.Group):
            found += _walk(command, (*path, name))
        if not isinstance(command, click.Group) or name == "run":
            found.append((" ".join((*path, name)), command))
    return found


@pytest.mark.parametrize(("path", "command"), _walk(worker, ()))
def test_every_verb_and_flag_is_on_the_page(path: str, command: click.Command) -> None:
    assert f"worker {path}" in PAGE
    section = PAGE.split(f"\n## worker {path.split()[0]}\n")[-1].split("\n## ")[0]
    settings = {option.name for option in flags()}
    everywhere = settings | {"debug", "as_json"}
    for parameter in command.get_params(click.Context(command)):
        if "--help" in parameter.opts or parameter.name in everywhere:
            continue
        if isinstance(parameter, click.Option):
            assert parameter.opts[-1] in section or parameter.opts[0] in section, parameter.opts
