"""The audit queries on adopted tables, which plain SQL knows from worker.sources alone."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.adopted import Donation, ghost, in_flight, source
from tests.adoption import adopt
from tests.cli import CLI
from tests.workers import drained
from worker import App, Dead, Retry, audit
from worker.sources.rows import FIRST
from worker.tables.spec import TableSpec

Connection = psycopg.Connection[Any]

TABLES = """
create schema shop;
create table donations (
    id bigint generated always as identity primary key,
    amount integer, org text, next_at timestamptz default now()
);
create table shop."Odd Orders" (
    place text, at timestamptz, due timestamp, "Open" boolean default true, primary key (place, at)
)
"""
ODD = TableSpec("odd", 'shop."Odd Orders"', ("place", "at"), due="due", where='"Open"')
STATES = ["due", "running", "retrying", "scheduled", "dead", "cancelled"]


@pytest.fixture
def cli(db_url: str, capsys: pytest.CaptureFixture[str]) -> CLI:
    return CLI(db_url, capsys)


def ask(pg: Connection, name: str, **params: object) -> list[dict[str, Any]]:
    columns, rows = audit.run(pg, name, **params)
    return [dict(zip(columns, row, strict=True)) for row in rows]


@pytest.fixture
async def tables(db_url: str, pg: Connection, apg: asyncpg.Connection) -> None:
    """Of donations: 1 dead, 2 retrying, 3 done, 4 to come, 5 and 6 due. Of the others one of two is
    due, and one in the hands of a worker."""
    pg.execute(TABLES)
    await asyncio.to_thread(adopt, db_url, "donations", "--due", "next_at", "--tenant", "org")
    odd = ("--name", "odd", "--key", "place,at", "--due", "due", "--where", str(ODD.where))
    await asyncio.to_thread(adopt, db_url, ODD.table, *odd)
    app = App()

    @app.rows("donations", due="next_at", tenant="org")
    async def charge(row: Donation) -> None:
        if row.amount == 1:
            raise Dead("card expired")
        if row.amount == 2:
            raise Retry("provider down", after=3600)

    pg.execute(
        "insert into donations (amount, org) select i, 'org ' || i from generate_series(1, 3) i"
    )
    await drained(app, db_url)
    pg.execute("insert into donations (amount, next_at) values (4, now() + interval '1 h')")
    pg.execute(
        "insert into donations (amount, next_at) values (5, now() - interval '1 h'), (6, now())"
    )
    pg.execute(
        """insert into shop."Odd Orders" (place, at, due, "Open")
           select 'north, ' || i, '2026-11-22 12:00+01',
                  now() at time zone 'UTC' - interval '1 min' * (3 - i), i < 3
             from generate_series(1, 3) i"""
    )
    rows = await source(apg, ODD, "place")
    worker = await ghost(apg, silent=0)
    assert len(await apg.fetch(rows.claim_sql, worker, 1, FIRST.replace(tzinfo=None), False)) == 1
    assert await in_flight(apg, ODD.table) == 1


@pytest.mark.usefixtures("tables")
def test_due_now(pg: Connection) -> None:
    odd, donations = sorted(ask(pg, "due_now"), key=lambda row: row["queue"], reverse=True)
    counts = ("queue", "kind", "due", "running", "retrying", "scheduled", "workers")
    assert [donations[name] for name in counts] == ["donations", "donations", 2, 0, 1, 1, 0]
    assert 3600 <= donations["longest_wait"].total_seconds() < 3700
    assert [odd[name] for name in counts] == ["odd", "odd", 1, 1, 0, 0, 0]
    assert [row["due"] for row in ask(pg, "due_now", queue="odd")] == [1]


@pytest.mark.usefixtures("tables")
def test_oldest_due(pg: Connection) -> None:
    pg.execute("insert into worker.gates (queue, paused_at) values ('odd', now())")
    pg.execute("select worker.enqueue('note', in_ => '-10 min')")
    rows = ask(pg, "oldest_due")
    assert [(row["id"], row["queue"], row["why_not"]) for row in rows] == [
        ("5", "donations", "no live worker serves it"),
        ("1", "default", "no live worker serves it"),
        (r"north\, 2,2026-11-22 11:00:00+00", "odd", "it is paused"),
        ("6", "donations", "no live worker serves it"),
    ]
    assert [row["id"] for row in ask(pg, "oldest_due", lines=2)] == ["5", "1"]
    assert [row["id"] for row in ask(pg, "oldest_due", queue="donations")] == ["5", "6"]


@pytest.mark.usefixtures("tables")
def test_dead_rows(pg: Connection) -> None:
    [dead] = ask(pg, "dead_rows")
    shown = ("id", "queue", "kind", "tenant", "attempts", "crashes", "error_type", "message")
    assert [dead[name] for name in shown] == [
        *("1", "donations", "donations", "org 1", 1, 0, "Dead", "card expired")
    ]
    assert ask(pg, "dead_rows", queue="odd") == ask(pg, "dead_rows", kind="odd") == []
    assert ask(pg, "dead_rows", since="0 s") == []
    pg.execute("update donations set next_at = now() where id = 1")  # its owner wants it run again
    assert ask(pg, "dead_rows") == []


@pytest.mark.usefixtures("tables")
def test_throughput_by_minute(pg: Connection) -> None:
    pg.execute(
        "update worker.attempts set started_at = ended_at - interval '70 ms' where outcome = 'done'"
    )
    lines = ask(pg, "throughput_by_minute")
    counts = ("done", "retried", "dead")  # a minute may have ended between them
    assert [sum(line[name] for line in lines) for name in counts] == [1, 1, 1]
    [line] = [line for line in lines if line["done"]]
    assert (line["mean_run_ms"], line["mean_wait_ms"]) == (70, None)


@pytest.mark.usefixtures("tables")
def test_rows_by_their_states(pg: Connection) -> None:
    for state in STATES:
        given = pg.execute(
            "select row_key, state from worker.adopted_rows(array[%s]) where source = 'donations'",
            [state],
        ).fetchall()
        keys = {"due": ["5", "6"], "retrying": ["2"], "scheduled": ["4"], "dead": ["1"]}
        assert sorted(given) == [(key, state) for key in keys.get(state, [])]
    count = pg.execute("select count(*) from worker.adopted_rows(%s)", [STATES]).fetchone()
    assert count == (7,)


@pytest.mark.usefixtures("tables")
def test_keys_are_those_of_the_attempts(pg: Connection) -> None:
    [(token,)] = pg.execute("select token from worker.adopted_rows('{running}')").fetchall()
    assert token > 0
    same = pg.execute(
        "select count(*) from worker.adopted_rows('{dead,retrying}') r"
        " join worker.attempts a using (source, row_key, token)"
    ).fetchone()
    assert same == (2,)


@pytest.mark.usefixtures("tables")
def test_worker_status_and_queues(pg: Connection, cli: CLI) -> None:
    [status] = cli("status", "--json").json
    shown = ("due", "scheduled", "retrying", "running", "dead_last_day", "unreadable")
    assert [status[name] for name in shown] == [3, 0, 0, 1, 1, []]
    assert 3600 <= status["oldest_due"] < 3700
    assert "a row has been due for 36" in cli("status", "--check").err
    names = ("queue", "due", "scheduled", "retrying", "running")
    lines = [[row[name] for name in names] for row in cli("queues", "list").rows]
    assert lines == [["donations", "2", "1", "1", "0"], ["odd", "1", "0", "0", "1"]]
    assert cli("queues", "pause", "donations").code == 0
    assert cli("status", "--json").json[0]["oldest_due"] < 3600
    pg.execute("drop table donations")
    found = cli("status", "--check")
    assert (found.code, "tables that cannot be read: donations\n" in found.err) == (8, True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("drop table donations", "donations is gone"),
        ("alter table donations drop duerow_state", "duerow_state does not exist"),
        ("lock table donations in access exclusive mode", "lock timeout"),
    ],
)
@pytest.mark.usefixtures("tables")
def test_a_table_that_cannot_be_read(pg: Connection, db_url: str, change: str, why: str) -> None:
    """It keeps no other from being shown."""
    with psycopg.connect(db_url) as other:
        other.execute(change.encode())
        if "lock" not in change:
            other.commit()
        first, *others = ask(pg, "oldest_due")
        assert (first["queue"], first["why_not"]) == ("donations", "cannot be read")
        assert why in first["last_error"]
        assert [row["queue"] for row in others] == ["odd"]
        lines = {row["queue"]: row for row in ask(pg, "due_now")}
        assert lines["odd"]["due"] == 1
        assert (lines["donations"]["due"], lines["donations"]["scheduled"]) == (None, None)
        assert ask(pg, "dead_rows") == []
