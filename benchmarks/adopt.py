"""Adopting a table while others write it: how long they wait, and how long it is locked.

    python -m benchmarks.adopt [--rows N] [--writers N] [--report SECONDS] [--lock-timeout SECONDS]

Writers update and insert single rows, each in its own transaction, before and while psql runs what
`worker tables add --sql` printed. The second run has a report open on the table, a transaction that
reads and then stays, so that no strong lock is to be had until it ends. A sampler looks at pg_locks
about every millisecond: `locked` is the longest time that nobody else could write, from the sample
before it to the sample after it; `waited` the longest that a writer was seen to wait for a lock.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import RawCursor

from benchmarks.server import server
from tests.postgres import local_binaries
from worker.cli import main as worker

TABLE = "donations"
CREATE = f"""
create table {TABLE} (
    id bigint primary key, org_id bigint not null, donor text not null, amount numeric not null,
    status text not null, next_charge_at timestamptz, created_at timestamptz not null, note text);
insert into {TABLE}
select i, mod(i, 1000), 'donor ' || i, mod(i, 500),
       case mod(i, 10) when 0 then 'paused' else 'active' end,
       now() + (mod(i, 100) - 1) * interval '1 hour', now(), repeat('x', 100)
  from generate_series(1, %s) i;
create index on {TABLE} (org_id);
create index on {TABLE} (created_at)"""
ADD = (TABLE, "--due", "next_charge_at", "--where", "status = 'active'", "--tenant", "org_id")

# Whoever holds one of these keeps writers out.
STRONG = ["ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"]
LOCKS = """
select l.pid, l.mode, l.granted, extract(epoch from clock_timestamp() - l.waitstart)::float8
  from pg_locks l
 where l.relation = $1::oid and (not l.granted or l.mode = any ($2::text[]))"""

BEFORE = 3.0  # seconds of traffic alone
PACE = 0.002  # seconds between two writes of a writer


@dataclass
class Adoption:
    """Seconds. before, during: how long each write took."""

    rows: int
    took: float = 0.0
    locked: float = 0.0
    waited: float = 0.0
    rewritten: bool = False
    before: list[float] = field(default_factory=list)
    during: list[float] = field(default_factory=list)


class Traffic:
    """Threads that write until the block ends."""

    def __init__(self, url: str, rows: int, writers: int) -> None:
        self._url = url
        self._rows = rows
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(i,)) for i in range(writers)]
        self.taken: list[tuple[float, float]] = []  # (when it began, how long it took)
        self.failures: list[Exception] = []

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        chance = random.Random(number)
        new = self._rows + number * 100_000_000
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._stop.wait(PACE):
                new += 1
                started = time.perf_counter()
                try:
                    self._one(connection, chance.randint(1, self._rows), new)
                except psycopg.Error as error:
                    self.failures.append(error)
                self.taken.append((started, time.perf_counter() - started))

    def _one(self, connection: psycopg.Connection[Any], row: int, new: int) -> None:
        if new % 5:
            connection.execute(f"update {TABLE} set amount = amount + 1 where id = %s", [row])
        else:
            connection.execute(
                f"insert into {TABLE} values (%s, 1, 'new', 1, 'active', now(), now())", [new]
            )


class Sampler:
    """Looks at the table's locks as often as it can without being a load itself."""

    def __init__(self, url: str, table: int) -> None:
        self._url = url
        self._table = table
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.locked = 0.0
        self.waited = 0.0

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        since: dict[tuple[int, str], float] = {}
        last = time.perf_counter()
        with psycopg.connect(self._url, autocommit=True) as connection:
            cursor = RawCursor(connection)
            while not self._stop.wait(0.0005):
                found = cursor.execute(LOCKS, [self._table, STRONG]).fetchall()
                now = time.perf_counter()
                held = {(pid, mode) for pid, mode, granted, _ in found if granted}
                for one in held:
                    since.setdefault(one, last)
                for one in list(since):
                    self.locked = max(self.locked, now - since[one])
                    if one not in held:
                        del since[one]
                waits = [waiting or 0.0 for _, mode, _, waiting in found if mode not in STRONG]
                self.waited = max(self.waited, *waits, 0.0)
                last = now


def measure(
    url: str, rows: int, *, writers: int, report: float, lock_timeout: float, before: float = BEFORE
) -> Adoption:
    """Makes the table anew and adopts it under traffic. report: seconds that one stays open."""
    table, filenode = _make(url, rows)
    script = _script(url, lock_timeout)
    seen = Adoption(rows)
    with Traffic(url, rows, writers) as traffic, Sampler(url, table) as sampler:
        threading.Event().wait(before)
        sampler.locked = sampler.waited = 0.0
        with _report(url, report):
            started = time.perf_counter()
            _psql(url, script)
            ended = time.perf_counter()
    assert not traffic.failures, traffic.failures[0]
    seen.took, seen.locked, seen.waited = ended - started, sampler.locked, sampler.waited
    seen.before = [took for at, took in traffic.taken if at + took < started]
    seen.during = [took for at, took in traffic.taken if at + took >= started and at < ended]
    seen.rewritten = _filenode(url) != filenode
    return seen


def _make(url: str, rows: int) -> tuple[int, int]:
    """The table's oid and its file."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"drop table if exists {TABLE}; delete from worker.sources")
        connection.execute((CREATE % rows).encode())
        connection.execute(f"vacuum analyze {TABLE}")
        connection.execute("checkpoint")
        row = connection.execute(f"select '{TABLE}'::regclass::oid").fetchone()
        assert row is not None
    return row[0], _filenode(url)


def _filenode(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(f"select pg_relation_filenode('{TABLE}')").fetchone()
        assert row is not None
        return int(row[0])


def _script(url: str, lock_timeout: float) -> str:
    """What `worker tables add --sql` prints."""
    words = ["--sql", "--lock-timeout", f"{round(lock_timeout * 1000)}ms", "--database-url", url]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        worker(["tables", "add", *ADD, *words])
    return printed.getvalue()


def _psql(url: str, script: str) -> None:
    program = str(local_binaries().directory / "psql")
    command = [program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url]
    subprocess.run(command, input=script, text=True, check=True, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def _report(url: str, seconds: float) -> Iterator[None]:
    """A transaction that has read the table and stays open for so long."""
    if not seconds:
        yield
        return
    began = threading.Event()

    def read() -> None:
        with psycopg.connect(url, application_name="report") as connection:
            connection.execute(f"select count(*) from {TABLE} where id < 100")
            began.set()
            connection.execute("select pg_sleep(%s)", [seconds])

    thread = threading.Thread(target=read)
    thread.start()
    began.wait()
    try:
        yield
    finally:
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adopt")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--report", type=float, default=10.0, help="seconds that it stays open")
    parser.add_argument("--lock-timeout", type=float, default=0.2, help="seconds")
    said = parser.parse_args()
    print(f"{said.rows:,} rows, {said.writers} writers, tries of {1000 * said.lock_timeout:.0f} ms")
    print(
        f"{'':22}{'adopted in':>12}{'locked':>12}{'waited':>12}"
        f"{'writes/s':>18}{'p99 write':>18}{'longest write':>20}  rewritten"
    )
    with server() as cluster:
        for name, report in (("writers alone", 0.0), ("and a report", said.report)):
            seen = measure(
                cluster.url,
                said.rows,
                writers=said.writers,
                report=report,
                lock_timeout=said.lock_timeout,
            )
            print(_line(name, seen))


def _line(name: str, seen: Adoption) -> str:
    def ms(before: float, during: float) -> str:
        return f"{1000 * before:.1f} -> {1000 * during:.1f} ms"

    rates = f"{len(seen.before) / BEFORE:,.0f} -> {len(seen.during) / seen.took:,.0f}"
    return (
        f"{name:22}{seen.took:>10.1f} s{1000 * seen.locked:>9.1f} ms{1000 * seen.waited:>9.1f} ms"
        f"{rates:>18}{ms(_p99(seen.before), _p99(seen.during)):>18}"
        f"{ms(max(seen.before), max(seen.during)):>20}  {'YES' if seen.rewritten else 'no'}"
    )


def _p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]


if __name__ == "__main__":
    main()
