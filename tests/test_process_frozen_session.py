"""A worker that is frozen while its handler's session holds a row does not keep the row."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

import asyncpg
import psycopg

from tests.adoption import adopt
from tests.facts import eventually
from worker import App
from worker.source import Source
from worker.sources.adopt import adopted
from worker.sources.jobs import Jobs

Connection = psycopg.Connection[Any]

DONATIONS = """
create table donations (id bigint generated always as identity primary key, due timestamptz);
insert into donations (due) select now() from generate_series(1, 3)"""
CLAIMED_JOBS = """
insert into worker.jobs (id, kind, owner, token, attempt, claimed_at)
select id, 'charge', owner, 1, 1, now()
  from unnest(%s::bigint[], %s::bigint[]) as claim(id, owner)"""
CLAIMED_ROWS = """
update donations set duerow_owner = owner, duerow_token = 1
  from unnest(%s::bigint[], %s::bigint[]) as claim(key, owner) where id = key"""
WORKERS = """
insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease)
select name, '-', 1, '-', '{}', '{}', 1, '1 min' from unnest(array['frozen', 'live']) as name
returning id"""


def session(url: str, name: str, statement: str) -> tuple[closing[Connection], int]:
    """A session of that application_name that has carried out a statement, and not committed."""
    connection = psycopg.connect(url, application_name=name)
    connection.execute(statement)
    return closing(connection), connection.info.backend_pid


def cut(watcher: Connection, source: Source, workers: list[int]) -> list[int]:
    sql, params = source.cut(workers)
    with psycopg.RawCursor(watcher) as cursor:
        return [pid for _, pid in cursor.execute(sql, params).fetchall()]


async def test_sessions_of_the_frozen_are_cut(
    db_url: str, pg: Connection, apg: asyncpg.Connection
) -> None:
    app = App()

    @app.rows("donations", due="due")
    async def charge(row: dict[str, Any]) -> None: ...

    pg.execute(DONATIONS)
    await asyncio.to_thread(adopt, db_url, "donations", "--due", "due")
    [handler] = app.registry
    rows = await adopted(apg, handler)
    [frozen], [live] = pg.execute(WORKERS).fetchall()
    keys, owners = [1, 2, 3], [frozen, live, frozen]
    pg.execute(CLAIMED_JOBS, [keys, owners])
    pg.execute(CLAIMED_ROWS, [keys, owners])

    settle = "delete from worker.jobs where id = "
    touch = "update donations set due = due where id = "
    held = {
        name: session(db_url, application, statement)
        for name, application, statement in (
            ("frozen, jobs", "duerow handler", f"{settle} 1"),
            ("frozen, rows", "duerow handler", f"{touch} 1"),
            ("live, jobs", "duerow handler", f"{settle} 2"),
            ("live, rows", "duerow handler", f"{touch} 2"),
            ("the user's own, jobs", "psql", f"{settle} 3"),
            ("the user's own, rows", "psql", f"{touch} 3"),
        )
    }
    pg.execute("update worker.workers set gone_at = now() where id = %s", [frozen])
    try:
        for source, name in ((Jobs([]), "frozen, jobs"), (rows, "frozen, rows")):
            ended = eventually(lambda: cut(pg, source, [frozen, live]))  # noqa: B023
            assert ended == [held[name][1]]
            eventually(lambda: gone(pg, ended[0]))  # noqa: B023
            assert cut(pg, source, [frozen, live]) == []
    finally:
        for connection, _ in held.values():
            connection.__exit__()


def gone(pg: Connection, pid: int) -> bool:
    return pg.execute("select from pg_stat_activity where pid = %s", [pid]).fetchone() is None
