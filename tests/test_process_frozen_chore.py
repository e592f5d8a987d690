"""Who holds a chore's lock and is frozen loses it, wherever in the protocol it stopped."""

from __future__ import annotations

from contextlib import closing

import psycopg

from tests.facts import eventually
from worker.statements import statement

Connection = psycopg.Connection[tuple[int, ...]]


def hold(connection: Connection, chore: str) -> int:
    """Takes the lock of a chore as chores/begin.sql does; the pid of its session."""
    connection.execute("begin")
    connection.execute(
        "select pg_advisory_xact_lock(hashtextextended('duerow chore ' || %s, 0))", [chore]
    )
    return connection.info.backend_pid


def stop_after_parse(connection: Connection) -> None:
    """Leaves the session with a statement that was parsed and not executed."""
    session = connection.pgconn
    session.enter_pipeline_mode()
    session.send_prepare(b"parsed", b"select 1")
    session.send_flush_request()
    session.flush()


def deposed(watcher: Connection, chore: str) -> int | None:
    with psycopg.RawCursor(watcher) as cursor:
        row = cursor.execute(statement("chores/depose"), [chore, 0.0]).fetchone()
    return row and row[1]


def test_the_frozen_are_deposed(db_url: str, pg: Connection) -> None:
    with (
        closing(psycopg.connect(db_url)) as idle,
        closing(psycopg.connect(db_url)) as parsed,
        closing(psycopg.connect(db_url)) as busy,
    ):
        holders = {"idle": hold(idle, "idle"), "parsed": hold(parsed, "parsed")}
        stop_after_parse(parsed)
        state = "select state from pg_stat_activity where pid = %s"
        eventually(lambda: pg.execute(state, [holders["parsed"]]).fetchone() == ("active",))
        hold(busy, "busy")
        busy.pgconn.send_query(b"select pg_sleep(60)")
        eventually(lambda: busy.pgconn.flush() == 0)
        asleep = "select wait_event from pg_stat_activity where pid = %s"
        asleep_of = [busy.info.backend_pid]
        eventually(lambda: pg.execute(asleep, asleep_of).fetchone() == ("PgSleep",))
        for chore, pid in holders.items():
            assert eventually(lambda: deposed(pg, chore)) == pid  # noqa: B023
            lock = "select count(*) from pg_locks where pid = %s"
            eventually(lambda: pg.execute(lock, [pid]).fetchone() == (0,))  # noqa: B023
        assert deposed(pg, "busy") is None


def test_a_chore_that_was_done_lately_is_left_alone(db_url: str, pg: Connection) -> None:
    pg.execute("insert into worker.chores (name, last_run_at) values ('fresh', now())")
    plan = "explain (analyze, costs off, timing off, summary off) "
    with psycopg.RawCursor(pg) as cursor:
        lines = cursor.execute(plan + statement("chores/depose"), ["fresh", 60.0]).fetchall()
    told = "\n".join(str(line[0]) for line in lines)
    assert "One-Time Filter" in told
    assert "never executed" in told
