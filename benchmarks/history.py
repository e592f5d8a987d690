"""Drain where millions of rows have been finished before, beside one where none has.

Two databases on one server, in turn. The history is as a busy system leaves it: half of its rows
are today's, the others of the 13 days before, each in the partition of its day; vacuumed and
analysed. Rows that are done leave no other trace: `worker.attempts` is for those that were not done
at once.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import psycopg

from benchmarks import drain, report, server
from benchmarks.turns import turns
from worker.statements import statement

NONE = "no history"
DAYS = 13
LIVE = "worker.jobs"

MAKE = """
insert into worker.jobs_finished
       (id, finished_at, due_at, claimed_at, worker, token, created_at, attempt, run_ms, priority,
        crashes, state, queue, kind, args)
select i, at, at - interval '2 s', at - interval '1 s', 1, 1, at - interval '2 s', 1, 1000, 0,
       0, 'done', 'default', 'noop', jsonb_build_object('i', i, 'pad', repeat('x', 90))
  from generate_series(%(first)s::bigint, %(last)s) i,
       lateral (select %(since)s::timestamptz + (%(until)s::timestamptz - %(since)s)
                       * ((i - %(first)s)::float8 / (%(last)s - %(first)s + 1)) as at) finished"""
AT_MOST = 500_000  # rows of a statement


def run(rows: int, rounds: int, slots: int, history: int) -> dict[str, Any]:
    full = f"{history:,} finished before"
    found: dict[str, dict[str, list[float]]] = {NONE: defaultdict(list), full: defaultdict(list)}
    with server.server() as cluster:
        urls = {NONE: cluster.url, full: server.another(cluster, "history")}
        make(urls[full], history)
        for name, url in turns(rounds, urls.items()):
            empty = server.TABLES if name == NONE else LIVE
            server.seed(cluster, rows, url=url, empty=empty)
            spent = drain.once(cluster, rows, slots, url=url)
            for figure, value in drain.figures(spent).items():
                found[name][figure].append(value)
        assert count(urls[NONE]) == rows
        assert count(urls[full]) == history + rounds * rows
    result = {"rows": rows, "slots": slots, **{name: dict(of) for name, of in found.items()}}
    report.show(result)
    return result


def make(url: str, rows: int) -> None:
    """Rows that were finished before today and today, in the order of their ids."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "select worker.ensure_partitions("
            "'jobs_finished', 'finished_at', 7, now() - make_interval(days => %s))",
            [DAYS],
        )
        found = connection.execute(
            "select date_trunc('day', now(), 'UTC') - make_interval(days => %s),"
            " date_trunc('day', now(), 'UTC'), now()",
            [DAYS],
        ).fetchone()
        assert found is not None
        days, today, now = found
        half = rows // 2
        for first, last, since, until in ((1, half, days, today), (half + 1, rows, today, now)):
            step = (until - since) / (last - first + 1)
            for at in range(first, last + 1, AT_MOST):
                end = min(last, at + AT_MOST - 1)
                given = {"first": at, "last": end, "since": since + step * (at - first)}
                connection.execute(MAKE, {**given, "until": since + step * (end - first + 1)})
        connection.execute("select setval('worker.jobs_id_seq', %s)", [rows])
        connection.execute("vacuum (freeze, analyze) worker.jobs_finished")
        connection.execute(statement("chores/stats").encode())  # as a fleet has long done
        check(connection, rows)


def check(connection: psycopg.Connection, rows: int) -> None:
    """That each row is in the partition of its day, and the planner knows of them."""
    found = connection.execute(
        "select sum(reltuples)::bigint,"
        " count(*) filter (where reltuples > 0), max(reltuples)::bigint"
        " from pg_class where relkind = 'r' and relname ~ '^jobs_finished_[0-9]{8}$'"
    ).fetchone()
    assert found is not None
    known, partitions, largest = found
    assert partitions == DAYS + 1, f"the history is in {partitions} partitions"
    assert abs(known - rows) <= rows // 20, f"{known} of {rows} rows are known to the planner"
    assert abs(largest - rows / 2) <= rows // 20, f"{largest} of {rows} rows are today's"


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute("select count(*) from worker.jobs_finished").fetchone()
        assert found is not None
        return int(found[0])
