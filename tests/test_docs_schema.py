"""docs/schema.md promises what a migrated database has."""

from __future__ import annotations

import re

import psycopg
import pytest

from tests.pages import ROOT, blocks
from worker.tables.bookkeeping import NAMES

PAGE = "docs/schema.md"
TEXT = (ROOT / PAGE).read_text("utf-8")
COLUMN = re.compile(r"^\| `(\w+)` \| ([\w\[\] ]+) \|", re.MULTILINE)


def promised() -> dict[str, list[tuple[str, str]]]:
    """Table or view -> (column, type) of each."""
    sections = re.split(r"^## (worker\.\w+)$", TEXT, flags=re.MULTILINE)[1:]
    titles, bodies = sections[::2], sections[1::2]
    found = {title: COLUMN.findall(body) for title, body in zip(titles, bodies, strict=True)}
    return {title: columns for title, columns in found.items() if columns}


@pytest.mark.parametrize("relation", promised())
def test_each_column_is_there_with_its_type(pg: psycopg.Connection, relation: str) -> None:
    there = pg.execute(
        "select attname, format_type(atttypid, null) from pg_attribute"
        " where attrelid = %s::regclass and attnum > 0 and not attisdropped",
        [relation],
    ).fetchall()
    assert set(promised()[relation]) <= set(there)


def test_nothing_in_it_went_unread() -> None:
    """Each line of a table was taken as a column, each relation has some."""
    headers = len(re.findall(r"^\| column ", TEXT, re.MULTILINE))
    lines = [line for line in TEXT.splitlines() if line.startswith("|")]
    assert len(lines) == 2 * headers + sum(map(len, promised().values()))
    assert len(promised()) == headers > 0


def test_every_relation_is_told_or_left_out_on_purpose(pg: psycopg.Connection) -> None:
    there = pg.execute(
        "select 'worker.' || relname from pg_class"
        " where relnamespace = 'worker'::regnamespace and relkind in ('r', 'p', 'v')"
        "   and not relispartition"
    ).fetchall()
    ours_alone = {"worker.schema_revisions", "worker.unique_keys"}
    assert {name for (name,) in there} - set(promised()) == ours_alone


def test_the_view_of_all_jobs_is_told_in_full(pg: psycopg.Connection) -> None:
    for view in ("worker.all_jobs", "worker.attempt_log"):
        columns = pg.execute(f"select * from {view} limit 0").description or []
        assert {column.name for column in columns} == {name for name, _ in promised()[view]}


def test_the_columns_of_an_adopted_table() -> None:
    assert set(re.findall(r"`(duerow_\w+)`", TEXT)) <= set(NAMES)


def test_the_function(pg: psycopg.Connection) -> None:
    [block] = blocks(PAGE, "sql")
    [(job,)] = pg.execute(block.text.encode()).fetchall()
    taken = pg.execute(
        "select proargnames from pg_proc where oid = 'worker.enqueue'::regproc"
    ).fetchone()
    assert taken is not None
    assert re.findall(r"^    (\w+) =>", block.text, re.MULTILINE) == taken[0]
    row = pg.execute("select kind, queue, tenant from worker.jobs where id = %s", [job]).fetchone()
    assert row == ("charge", "payments", "org 3")
