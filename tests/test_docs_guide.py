"""docs/guide.md, run as one module by a real worker, with what it says of each handler."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.pages import Command, Shell, blocks
from tests.workers import drained, job
from worker.app import App
from worker.job import Job
from worker.producer import enqueue

PAGE = "docs/guide.md"

JOBS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "label": (
        {"order_id": 7, "to": {"street": "Dam 1"}, "sent": "2026-11-22"},
        {"state": "done", "result": {"file": "label-7-NL.pdf"}},
    ),
    "label misfit": ({"order_id": "seven", "to": {}}, {"state": "dead", "attempt": 1}),
    "label unknown": (
        {"order_id": 7, "to": {"street": "Dam 1"}, "colour": "red"},
        {"state": "dead", "attempt": 1},
    ),
    "welcome": ({"email": "you@example.org"}, {"state": "done"}),
    "book": ({"donation_id": 7, "cents": 500}, {"state": "done"}),
    "predict": ({"market": "NL"}, {"state": "done"}),
    "remind": ({"donation_id": 7, "state": "fine"}, {"state": "done"}),
    "remind busy": ({"donation_id": 7, "state": "busy"}, {"state": "retrying", "attempt": 1}),
    "remind night": ({"donation_id": 7, "state": "night"}, {"state": "scheduled", "attempt": 0}),
    "remind withdrawn": ({"donation_id": 7, "state": "withdrawn"}, {"state": "cancelled"}),
    "remind closed": (
        {"donation_id": 7, "state": "closed"},
        {"state": "dead", "last_error": "the account is closed"},
    ),
    "refresh": ({"account": "@slow"}, {"state": "retrying", "attempt": 1}),
    "refresh gone": ({"account": "@gone"}, {"state": "dead", "attempt": 1}),
    "refresh other": ({"account": "@other"}, {"state": "dead", "attempt": 1}),
    "track": ({"order_id": 7}, {"state": "done"}),
    "report": ({"month": "May"}, {"state": "done", "result": "May: 3 pages"}),
    "charge": ({"donation_id": 7}, {"state": "done"}),
    "send": ({"text": "hello"}, {"state": "done"}),
    "send throttled": ({"text": "too much"}, {"state": "scheduled", "attempt": 0}),
    "weekly": ({"email": "you@example.org"}, {"state": "done"}),
    "follow": ({"number": "home-1"}, {"state": "done", "result": {"state": "home"}}),
    "follow road": ({"number": "road-2"}, {"state": "retrying", "attempt": 1}),
    "follow lost": ({"number": "lost"}, {"state": "dead", "attempt": 1}),
    "import": ({"page": 0}, {"state": "done", "result": 3}),
}
"""Of each kind (the first word): arguments, and what becomes of the job."""


@pytest.fixture(scope="module")
def page() -> Iterator[dict[str, Any]]:
    """The names of the page's module, once its snippets have run."""
    module = types.ModuleType("guide")
    sys.modules["guide"] = module  # where the types of its annotations are looked up
    for block in blocks(PAGE, "python"):
        code = compile("\n" * (block.line - 1) + block.text, PAGE, "exec")
        exec(code, module.__dict__)
    yield module.__dict__
    del sys.modules["guide"]


@pytest.fixture
def app(page: dict[str, Any]) -> App:
    """The page's app, but for the handlers of tables."""
    app = App()
    for handler in page["app"].registry.jobs:
        app.registry.add(handler)
    return app


def test_each_handler_has_a_job_here(app: App) -> None:
    assert {name.split()[0] for name in JOBS} == {handler.kind for handler in app.registry}


async def test_every_answer_is_as_it_is_said(
    app: App, db_url: str, apg: asyncpg.Connection
) -> None:
    await apg.execute("create table ledger (donation bigint, cents bigint)")
    await apg.execute("create table predictions (market text, odds bigint)")
    ids = {}
    for name, (args, _) in JOBS.items():
        kind = name.split()[0]
        queue = app.registry.get(kind).queue
        ids[name] = (await enqueue(apg, Job(kind, args, queue=queue))).id
    await drained(app, db_url)
    for name, (_, expected) in JOBS.items():
        row = dict(await job(apg, ids[name]))
        row["result"] = row["result"] and json.loads(row["result"])
        assert {key: row[key] for key in expected} == expected, name
    assert await apg.fetch("select * from ledger") == [(7, 500)]
    assert await apg.fetch("select * from predictions") == [("NL", 2)]


async def test_snooze_and_retry_name_their_times(
    app: App, db_url: str, apg: asyncpg.Connection
) -> None:
    waits = {"busy": 30, "night": 8 * 3600}
    for state in waits:
        await enqueue(apg, Job("remind", {"donation_id": 7, "state": state}))
    await drained(app, db_url)
    rows = await apg.fetch("select args->>'state', due_at - now() from worker.jobs")
    left = {state: ahead.total_seconds() for state, ahead in rows}
    assert set(left) == set(waits)
    for state, seconds in waits.items():
        assert seconds - 15 < left[state] <= seconds, state


async def test_what_a_handler_wrote_goes_when_it_raises(
    app: App, db_url: str, apg: asyncpg.Connection
) -> None:
    await apg.execute("create table ledger (donation bigint, cents bigint check (cents > 0))")
    made = await enqueue(apg, Job("book", {"donation_id": 7, "cents": 0}))
    await drained(app, db_url)
    row = await job(apg, made.id or 0)
    assert row["finished_at"] is None
    assert "ledger_cents_check" in row["last_error"]
    assert await apg.fetch("select * from ledger") == []


def test_a_table_of_ones_own(
    page: dict[str, Any], db_url: str, pg: psycopg.Connection, tmp_path: Path
) -> None:
    pg.execute(
        "create table accounts (id bigint primary key, handle text, refresh_due_at timestamptz)"
    )
    pg.execute(
        "insert into accounts values (1, '@a', now() - interval '1 hour'),"
        " (2, '@asleep', now() - interval '1 minute'), (3, '@later', now() + interval '1 day')"
    )
    shell = Shell(tmp_path, DATABASE_URL=db_url)
    shell.type(Command("worker tables add accounts --due refresh_due_at --sql > add.sql"))
    shell.type(Command('psql -q -v ON_ERROR_STOP=1 -f add.sql "$DATABASE_URL"'))
    handlers = App()
    handlers.registry.add(page["app"].registry.get("accounts"))
    asyncio.run(drained(handlers, db_url))
    rows = pg.execute("select refresh_due_at - now() from accounts order by id").fetchall()
    first, second, third = (ahead for (ahead,) in rows)
    assert dt.timedelta(0) < first <= dt.timedelta(seconds=320)
    assert dt.timedelta(hours=23) < second <= dt.timedelta(days=1)
    assert dt.timedelta(hours=23) < third <= dt.timedelta(days=1)
