"""Makes a history to ask audit queries of: real workers that finish, fail, die, freeze and stop.

Nothing is inserted into Duerow's tables by hand but jobs, by `worker.enqueue()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from tests.facts import eventually
from tests.workers import InProcess
from worker import App, Cancel, Context, PermanentError, Retry, RetryPolicy, Snooze
from worker.carrier import send
from worker.runtime import Worker
from worker.settings import Settings
from worker.statements import statement
from worker.url import DatabaseURL

# Of the workers that are lost: short, for it is waited for, but not so short that a machine which
# stands still for a second ends it before its time.
LEASE = 3.0
STEADY = 30.0  # the lease of the one that must not be lost
AT_ONCE = RetryPolicy(wait=lambda state: 0)  # type: ignore[arg-type]
ALL = ("charge", "flaky", "hopeless", "snoozer", "unwanted", "session", "killer", "frozen", "long")


_seen: set[int] = set()


def _once(context: Context) -> bool:
    """Whether this process has run that row before; runs that cost no attempt count too."""
    seen = context.id in _seen
    _seen.add(context.id)
    return seen


def app_with(kinds: Sequence[str]) -> App:
    """An app that has handlers for these kinds; each does what its name says, once."""
    app = App()

    def charge(cents: int) -> dict[str, int]:
        return {"charged": cents}

    def flaky(context: Context) -> None:
        if context.attempt == 1:
            raise ConnectionError("the bank hung up")

    def hopeless() -> None:
        raise PermanentError("card expired")

    async def snoozer(context: Context) -> Snooze | None:
        return None if _once(context) else Snooze("not yet", after=0)

    async def unwanted() -> Cancel:
        return Cancel("donor withdrew")

    async def session(session: psycopg.AsyncConnection[Any], context: Context) -> Retry | None:
        """Settled in the handler's transaction: short, then long, then done."""
        if context.attempt == 3:
            return None
        await session.execute("select pg_sleep(%s)", [0.4 if context.attempt == 2 else 0])
        return Retry("not booked", after=0)

    async def killer(context: Context) -> None:
        if context.attempt == 1:
            assert multiprocessing.parent_process() is not None, "not the tests' own process"
            os.kill(os.getpid(), signal.SIGKILL)

    async def frozen(context: Context) -> None:
        """In its first run until it is frozen, and then lost."""
        await asyncio.sleep(60 if context.attempt == 1 else 0)

    async def long(context: Context) -> None:
        await asyncio.sleep(0 if _once(context) else 60)

    handlers = locals()
    for kind in kinds:
        app.handler(kind, retry=AT_ONCE)(handlers[kind])
    return app


def enqueue(pg: psycopg.Connection, kind: str, count: int = 1, **options: object) -> list[int]:
    """Ids, by SQL as any client would do it. options: parameters of worker.enqueue()."""
    given = "".join(f", {name} => %({name})s" for name in options)
    rows = pg.execute(
        f"select worker.enqueue(%(kind)s{given}) from generate_series(1, %(count)s)",  # type: ignore[arg-type]
        {"kind": kind, "count": count, **options},
    )
    return [row[0] for row in rows]


def register(pg: psycopg.Connection, name: str, kinds: Sequence[str], lease: float = 3600) -> int:
    """A worker that claims by our hand. Its id."""
    values = [name, "here", os.getpid(), "0.0", ["default"], list(kinds), 1, lease]
    return int(send(pg, statement("workers/register"), values)[0][0])


def claim(pg: psycopg.Connection, worker: int, kind: str, limit: int = 1) -> list[tuple[int, int]]:
    """(id, token) of the rows that the worker's claim gave."""
    streams: list[Any] = [["default"], [kind], [0], ["-infinity"], [0], limit, worker, False]
    send(pg, statement("claim/due"), streams)
    return pg.execute(
        "select id, token from worker.jobs where owner = %s order by id", [worker]
    ).fetchall()


def work(url: str, kinds: Sequence[str], *, grace: float = 5.0, name: str = "steady") -> None:
    """A worker in this process, until these kinds have no live row but `long` ones that run."""

    async def until_done() -> None:
        settings = Settings(
            lease=STEADY, grace=grace, concurrency=4, poll_interval=0.05, worker_name=name
        )
        worker = InProcess(app_with(kinds), settings, DatabaseURL.parse(url))
        running = asyncio.create_task(worker.run())
        left = (
            "select count(*) from worker.jobs "
            "where kind = any (%s) and (kind <> 'long' or owner is null)"
        )
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            while not running.done():
                row = await (await connection.execute(left, [list(kinds)])).fetchone()
                if row == (0,):
                    worker.stop()
                    break
                await asyncio.sleep(0.02)
        await running

    asyncio.run(until_done())


def _work_alone(url: str, kind: str, name: str) -> None:
    settings = Settings(lease=LEASE, concurrency=1, worker_name=name)
    asyncio.run(Worker(app_with([kind]), settings, DatabaseURL.parse(url)).run())


@contextlib.contextmanager
def worker_process(url: str, kind: str, name: str) -> Iterator[int]:
    """A worker of its own process, by pid; killed at the end."""
    process = multiprocessing.get_context("spawn").Process(
        target=_work_alone, args=(url, kind, name), daemon=True
    )
    process.start()
    assert process.pid is not None
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


SILENT = "worker.workers where stopped_at is null and heartbeat_at + lease < now()"

# As if a schedule had made jobs that have run.
TICKS = """
insert into worker.schedule_ticks (schedule, tick_at, outcome, job_id, worker, decided_at)
select 'hourly', created_at - id * interval '1 s', 'enqueued', id, worker, created_at
  from worker.jobs_finished where state = 'done' and kind = 'charge' order by id limit 3"""


def make_history(url: str) -> dict[str, list[int]]:
    """Everything that can happen to a row, once or twice. The ids by kind."""
    with psycopg.connect(url, autocommit=True) as pg:
        ids = {kind: enqueue(pg, kind) for kind in ("killer", "frozen")}
        with worker_process(url, "killer", "killed"):
            _wait_for_claims(pg, ids["killer"])
        with worker_process(url, "frozen", "frozen") as pid:
            _wait_for_claims(pg, ids["frozen"])
            _freeze(pg, pid)
            eventually(lambda: _count(pg, SILENT) == 2)
            ids |= {kind: enqueue(pg, kind, 2) for kind in ALL if kind not in (*ids, "charge")}
            ids["charge"] = enqueue(pg, "charge", 20, args='{"cents": 500}')
            work(url, ALL, grace=0.5)
            work(url, ["long"])
            os.kill(pid, signal.SIGCONT)
            eventually(lambda: _count(pg, "worker.attempts where outcome = 'lost'"))
            eventually(lambda: _count(pg, "worker.workers where name = 'frozen'") == 2)
        ids["orphan"] = enqueue(pg, "orphan", 3, in_="-10 minutes")
        ids["orphan"] += enqueue(pg, "orphan", 2, in_="1 hour")
        ids["paused"] = enqueue(pg, "charge", queue="paused", args='{"cents": 5}')
        pg.execute("insert into worker.gates (queue, paused_at) values ('paused', now())")
        pg.execute(TICKS)
        ids["held"] = enqueue(pg, "held")
        claim(pg, register(pg, "holder", ["held"]), "held")
        # The thawed worker registered anew and was then killed: nobody is left to notice.
        eventually(lambda: _count(pg, SILENT + " and gone_at is null"))
    return ids


def _freeze(pg: psycopg.Connection, pid: int) -> None:
    """Not inside a chore: that one's lock would stay taken until Postgres ends the transaction."""
    busy = "pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"

    def frozen() -> bool:
        os.kill(pid, signal.SIGSTOP)
        if _count(pg, busy + " and state <> 'idle'"):
            os.kill(pid, signal.SIGCONT)
            return False
        return True

    eventually(frozen)


def _wait_for_claims(pg: psycopg.Connection, rows: list[int]) -> None:
    claimed = "worker.jobs where owner is not null and id = any (%s)"
    eventually(lambda: _count(pg, claimed, rows) == len(rows), within=60)


def _count(pg: psycopg.Connection, what: str, *params: object) -> int:
    row = pg.execute(f"select count(*) from {what}", params).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return int(row[0])
