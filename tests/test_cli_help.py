"""What the program says of itself, and what it says to arguments that make no sense."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from worker.cli import invoke, worker
from worker.cli.common.command import ORDER
from worker.settings import Settings

HEAVY = ("pydantic", "psycopg", "asyncpg", "structlog", "rich", "sqlalchemy", "alembic", "tenacity")


def every_command() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []

    def walk(group: click.Group, path: tuple[str, ...]) -> None:
        ctx = click.Context(group)
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            found.append((*path, name))
            if isinstance(command, click.Group):
                walk(command, (*path, name))

    walk(worker, ())
    return found


def test_help_loads_nothing_heavy() -> None:
    """So that `worker --help` answers in a tenth of a second."""
    code = (
        "import sys, json\n"
        "from worker.cli import invoke\n"
        "invoke(['--help'])\n"
        f"print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout.splitlines()[-1]) == []


def test_the_verbs_are_the_files_of_the_folder() -> None:
    names = worker.list_commands(click.Context(worker))
    assert {"run", "drain", "init", "enqueue", "jobs", "queues", "workers", "db"} <= set(names)
    assert "common" not in names
    listed = [name for name in names if name in ORDER]
    assert listed == sorted(listed, key=ORDER.index)


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...]) -> None:
    found = CliRunner().invoke(worker, [*path, "--help"])
    assert found.exit_code == 0
    assert found.output.startswith(f"Usage: worker {' '.join(path)}")
    assert "--debug" in found.output


def test_every_setting_is_a_flag_of_run() -> None:
    output = CliRunner().invoke(worker, ["run", "--help"]).output
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'?"),
        (["jobs", "lst"], "No such command 'lst'. Did you mean 'list'?"),
        (["jobs", "cancel", "seven"], "'seven' is not a valid integer"),
        (["jobs", "snooze", "7", "--in", "soon"], "'soon': a duration is written like 30s"),
        (["jobs", "snooze", "7", "--at", "soon"], "a time is written like 2027-01-31T09:00"),
        (["jobs", "list", "--state", "ded"], "'ded' is not one of"),
        (["drain", "--max-rows", "0"], "0 is not in the range x>=1"),
        (["run", "--concurency", "5"], "--concurrency"),
    ],
)
def test_arguments_that_make_no_sense(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["jobs", "snooze", "7"], "say until when: --in or --at, not both"),
        (["db", "downgrade", "base"], "this would take the schema back to base"),
        (["run", "--concurrency", "many"], "concurrency (flag --concurrency): 'many'"),
        (["run", "--lease", "soon"], "lease (flag --lease): 'soon'"),
    ],
)
def test_errors_of_ours_say_what_and_the_next_command(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(arguments) == 2
    err = capsys.readouterr().err
    assert told in err
    assert "\n  next: " in err
    assert "Traceback" not in err


def test_a_traceback_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["jobs", "snooze", "7", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_what_nobody_expected_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("postgresql://u:hunter2@h/d\nsecond line")

    monkeypatch.setattr(Settings, "load", broken)
    assert invoke(["config", "show"]) == 1
    err = capsys.readouterr().err
    assert err == (
        "ZeroDivisionError: postgresql://u:***@h/d second line\n  next: run again with --debug\n"
    )


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Settings, "load", interrupted)
    assert invoke(["config", "show"]) == 130
