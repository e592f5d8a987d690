"""Everything that the README tells a reader to type, typed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.pages import ROOT, Block, Command, Shell, blocks, commands

README = "README.md"
FLOW = "Limits, schedules, many in one call"
IN_THE_CHECKOUT = ("make ",)
ELSEWHERE = ("pip install 'duerow[embedded]'",)
"""test_packaging.py builds and installs it."""


def section(title: str) -> list[Block]:
    """The blocks between this heading and the next."""
    lines = (ROOT / README).read_text("utf-8").splitlines()
    begin = lines.index(f"## {title}") + 1
    ends = (number for number in range(begin, len(lines)) if lines[number].startswith("## "))
    end = next(ends, len(lines))
    return [block for block in blocks(README) if begin < block.line <= end]


def test_every_command_is_known_to_a_test() -> None:
    titles = ("See it", "The first five minutes", "Jobs", "Your own table", FLOW, "At 3 a.m.")
    tested = [block for title in titles for block in section(title)]
    left = [str(block) for block in blocks(README) if block.language and block not in tested]
    assert left == []


def test_make_knows_the_targets() -> None:
    typed = [command.typed for block in section("See it") for command in commands(block)]
    assert typed
    for command in typed:
        assert command.startswith(IN_THE_CHECKOUT)
        subprocess.run(["bash", "-c", f"{command} --dry-run"], cwd=ROOT, check=True)


@pytest.mark.process
def test_the_first_five_minutes(tmp_path: Path) -> None:
    """On the embedded Postgres, which nobody has named."""
    tmp_path.chmod(0o711)
    shell = Shell(tmp_path)
    [block] = section("The first five minutes")
    for command in commands(block):
        if command.typed not in ELSEWHERE:
            shell.type(command)
    procfile = (tmp_path / "Procfile").read_text("utf-8")
    assert procfile in [block.text for block in blocks(README)]
    assert procfile == (ROOT / "Procfile").read_text("utf-8")


@pytest.mark.process
def test_jobs_and_what_is_asked_at_night(tmp_path: Path, db_url: str) -> None:
    shell = Shell(tmp_path, DATABASE_URL=db_url)
    for block in [*section("Jobs"), *section("At 3 a.m.")]:
        _follow(shell, block, db_url)
    with psycopg.connect(db_url) as connection:
        receipts = connection.execute("select * from receipts").fetchall()
    assert receipts == [(7, 500)]


@pytest.mark.process
def test_your_own_table(tmp_path: Path, db_url: str) -> None:
    shell = Shell(tmp_path, DATABASE_URL=db_url)
    for block in section("Your own table"):
        _follow(shell, block, db_url)
    with psycopg.connect(db_url) as connection:
        due = connection.execute(
            "select next_charge_at > now() + interval '29 days' from donations order by id"
        ).fetchall()
    assert due == [(True,), (False,)]


@pytest.mark.process
def test_limits_and_schedules(tmp_path: Path, db_url: str) -> None:
    shell = Shell(tmp_path, DATABASE_URL=db_url)
    for block in section(FLOW):
        _follow(shell, block, db_url)
    shell.type(Command("worker drain --app send:app", ["settled  0"]))
    with psycopg.connect(db_url) as connection:
        gates = connection.execute("select rate, tenant, concurrency from worker.gates").fetchall()
        schedules = connection.execute("select cron, tz from worker.schedules").fetchall()
    assert sorted(gates, key=str) == [(20.0, None, None), (None, "*", 3)]
    assert schedules == [("0 9 * * mon", "Europe/Berlin")]


def _follow(shell: Shell, block: Block, url: str) -> None:
    match block.language:
        case "python":
            shell.save(block)
        case "sql":
            with psycopg.connect(url) as connection:
                connection.execute(block.text.encode())
        case "console":
            for command in commands(block):
                shell.type(command)
        case other:
            pytest.fail(f"{block}: nobody reads {other!r}")


def test_what_a_page_does_not_show_is_missed(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.type(Command("echo one; echo 'two  2'; echo three", ["two ...", "three"]))
    with pytest.raises(AssertionError, match="does not show: one"):
        shell.type(Command("echo one; echo two", ["two", "one"]))
    with pytest.raises(AssertionError, match="false"):
        shell.type(Command("false"))
