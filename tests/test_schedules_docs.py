"""docs/schedules.md: every snippet runs, and what it says of catching up is so."""

from __future__ import annotations

import ast
import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.pages import ROOT, Shell, blocks, commands
from tests.workers import drained
from worker import App, Schedule
from worker.errors import RegistrationError
from worker.schedules.plan import Standing, plan
from worker.schedules.timing import Timing

PAGE = "docs/schedules.md"


@pytest.fixture
def names(db_url: str) -> dict[str, Any]:
    """Of the page's module, once its snippets have run."""
    names: dict[str, Any] = {"url": db_url, "__name__": "schedules_page"}
    for block in blocks(PAGE, "python"):
        exec(compile(block.text, str(block), "exec"), names)
    return names


def test_python(names: dict[str, Any], db_url: str, pg: psycopg.Connection[Any]) -> None:
    app: App = names["app"]
    assert list(app.schedules) == ["report", "cleanup", "poll", "relaunch"]
    assert len(app.scheduled()) == 4
    asyncio.run(drained(app, db_url))
    found = pg.execute(
        "select name, queue, next_at > now() from worker.schedules order by name"
    ).fetchall()
    assert found == [
        ("cleanup", "default", True), ("poll", "reports", True), ("relaunch", "reports", True),
        ("report", "reports", True),
    ]  # fmt: skip
    actions = pg.execute("select actor, action from worker.operator_actions order by id").fetchall()
    assert actions[0] == ("ada", "add")
    assert actions[1][1] == "remove"


def test_console(db_url: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path, DATABASE_URL=db_url)
    typed = [command for block in blocks(PAGE, "console") for command in commands(block)]
    assert len(typed) == 6
    for command in typed:
        shell.type(command)


def test_sql(pg: psycopg.Connection[Any]) -> None:
    [block] = blocks(PAGE, "sql")
    for statement in filter(str.strip, block.text.split(";\n")):
        assert pg.execute(statement.encode()).rowcount == 1


def test_the_refusal_reads_so() -> None:
    [block] = blocks(PAGE, "text")
    with pytest.raises(RegistrationError) as refused:
        Schedule("report", kind="report", cron="0 25 * * *")
    assert str(refused.value) + "\n" == block.text


def test_the_table_of_catching_up() -> None:
    daily = Timing("0 3 * * *")
    now = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
    text = (ROOT / PAGE).read_text("utf-8")
    for policy, said, count in (
        ("one", "one job", 1),
        ("all", "seven jobs", 7),
        ("skip", "none", 0),
    ):
        [line] = [line for line in text.splitlines() if line.startswith(f'| `"{policy}"`')]
        assert said in line
        first = daily.after(now - dt.timedelta(days=7))
        standing = Standing("a", "1", daily, first, policy, 100, None, 0.0)  # type: ignore[arg-type]
        assert len(plan(standing, now).ticks) == count


def test_every_option_is_told() -> None:
    text = (ROOT / PAGE).read_text("utf-8")
    for name in Schedule.__dataclass_fields__:
        assert f"`{name}" in text or f"`{name}=" in text or name in ("name", "kind"), name
    assert ast.parse(blocks(PAGE, "python")[0].text)
