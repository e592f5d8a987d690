"""Every snippet of docs/enqueue.md runs."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import CodeType
from typing import Any

import psycopg
import pytest

from worker import enqueue_many
from worker.errors import PayloadInvalid
from worker.job import Job
from worker.url import DatabaseURL

PAGE = (Path(__file__).parent.parent / "docs" / "enqueue.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def donations(pg: psycopg.Connection) -> None:
    pg.execute("create table donations (id integer primary key, amount numeric)")


@pytest.mark.usefixtures("donations")
async def test_python(db_url: str, pg: psycopg.Connection) -> None:
    names: dict[str, Any] = {
        "url": db_url,
        "sqlalchemy_url": DatabaseURL.parse(db_url).sqlalchemy_url("psycopg"),
    }
    assert len(blocks("python")) == 7
    for block in blocks("python"):
        code = compile(block, "docs/enqueue.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        await _run(code, names)
    told = pg.execute("select kind, count(*) from worker.jobs group by 1 order by 1").fetchall()
    assert told == [("charge", 6), ("receipt", 2), ("refresh", 6), ("reindex", 1), ("remind", 1)]
    assert pg.execute("select id from donations order by id").fetchall() == [(7,), (8,), (9,)]


async def _run(code: CodeType, names: dict[str, Any]) -> None:
    result = eval(code, names)
    if inspect.isawaitable(result):
        await result


@pytest.mark.usefixtures("donations")
def test_sql(pg: psycopg.Connection) -> None:
    pg.execute("insert into donations values (1, 5), (2, 50)")
    [block] = blocks("sql")
    for statement in filter(str.strip, block.split(";")):
        pg.execute(statement.encode())
    assert pg.execute("select count(*) from worker.jobs").fetchone() == (4,)


def test_the_refusal_reads_so() -> None:
    [block] = blocks("text")
    jobs = [Job("charge")] * 20_000
    jobs[17] = Job("charge", {"donor": {"name": "\0"}})
    with pytest.raises(PayloadInvalid) as caught:
        enqueue_many(None, jobs)
    assert str(caught.value) + "\n" == block
