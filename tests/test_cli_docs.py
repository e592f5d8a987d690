"""docs/cli.md: every command on it runs, and it leaves out no verb and no flag."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.cli import environment
from tests.facts import eventually
from worker.cli import worker
from worker.cli.common.settings_flags import flags

PAGE = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
ELSEWHERE = {"demo", "rows", "tables"}  # on pages of their own
UNTIL_STOPPED = ("worker run", "worker status --watch")


@pytest.mark.process
def test_every_command_runs(tmp_path: Path, db_url: str) -> None:
    """In the order of the page, in one directory and on one database."""
    bin = tmp_path / "bin"
    bin.mkdir()
    program = bin / "worker"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m worker "$@"\n')
    program.chmod(0o755)
    env = environment({"DATABASE_URL": db_url, "PATH": f"{bin}:{os.environ['PATH']}"})
    assert len(COMMANDS) > 30
    for command in COMMANDS:
        _run(command, tmp_path, env)


def _run(command: str, cwd: Path, env: dict[str, str]) -> None:
    expected = re.search(r"# exits with (\d+)", command)
    log = cwd / "output"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}" if "|" not in command else command],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            if command.startswith(UNTIL_STOPPED):
                eventually(log.read_text)
                process.send_signal(signal.SIGINT)
            code = process.wait(60)
        finally:
            process.kill()
    assert code == (int(expected[1]) if expected else 0), f"$ {command}\n{log.read_text()}"


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
