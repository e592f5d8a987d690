"""Steady state: one process enqueues while two workers drain, for a minute.

The producer sends 500 jobs a call with `enqueue_many`, as fast as they are settled: it pauses while
more than `rows` are waiting. What counts is a window in which all run, after a beginning of a few
seconds: rows finished in each of its seconds, by the server's records, and the CPU of each side.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

import psycopg

from benchmarks import ends, report, server
from benchmarks.ends import Count
from tests.postgres import Cluster

WORKERS = 2
BEGINNING = 3.0  # seconds, before the window
ENDS_WITHIN = 60.0
NAME = f"{WORKERS} workers, one producer"


def run(rows: int, rounds: int, slots: int, seconds: int) -> dict[str, Any]:
    """rows: that wait at the most. seconds: of each window."""
    found: dict[str, list[float]] = defaultdict(list)
    with server.server() as cluster:
        for _ in range(rounds):
            server.seed(cluster, 0)
            for figure, values in measured(cluster, rows, slots, seconds).items():
                found[figure] += values
    result = {"backlog": rows, "slots": slots, "seconds": seconds, NAME: dict(found)}
    report.show(result)
    return result


def measured(cluster: Cluster, most: int, slots: int, seconds: float) -> dict[str, list[float]]:
    """Of one window. Fails where a row was lost or settled twice."""
    with running(cluster, most, slots) as (producer, workers, enqueued, settled):
        time.sleep(BEGINNING)
        waiting = [ends.waiting(enqueued, settled)]
        cpu = [server.process_cpu(producer), sum(map(server.process_cpu, workers))]
        cpu.append(server.cpu(cluster))
        since = server.clock(cluster.url)
        for _ in range(round(seconds)):
            time.sleep(seconds / round(seconds))
            waiting.append(ends.waiting(enqueued, settled))
        until = server.clock(cluster.url)
        spent = [server.process_cpu(producer), sum(map(server.process_cpu, workers))]
        spent.append(server.cpu(cluster))
    by_second = finished(cluster, since, until)
    rows = sum(by_second)
    check(cluster, enqueued.value)
    us = [1e6 * (after - before) / rows for before, after in zip(cpu, spent, strict=True)]
    return {
        "rows/s": [rows / (until - since).total_seconds()],
        "rows/s, second by second": [float(n) for n in by_second[:-1]],
        "waiting rows": [float(n) for n in waiting],
        "producer us/row": [us[0]],
        "workers us/row": [us[1]],
        "server us/row": [us[2]],
    }


@contextlib.contextmanager
def running(
    cluster: Cluster, most: int, slots: int
) -> Iterator[tuple[int, list[int], Count, list[Count]]]:
    """The producer's process id and the workers', and what they count; all have begun. At the end
    the producer stops first, and the workers when nothing waits."""
    spawn = multiprocessing.get_context("spawn")
    enqueued, settled = spawn.Value("l", 0), [spawn.Value("l", 0) for _ in range(WORKERS)]
    workers = [_spawned(spawn, ends.work, cluster.url, slots, count) for count in settled]
    producer = _spawned(spawn, ends.produce, cluster.url, most, enqueued, settled)
    try:
        _until(lambda: all(count.value for count in settled), [producer, *workers])
        assert producer.pid is not None
        yield producer.pid, [one.pid for one in workers if one.pid], enqueued, settled
        _stop(producer)
        _until(lambda: ends.waiting(enqueued, settled) == 0, workers)
        for one in workers:
            _stop(one)
    finally:
        for one in (producer, *workers):
            one.kill()
            one.join()


def finished(cluster: Cluster, since: dt.datetime, until: dt.datetime) -> list[int]:
    """Rows of each second from `since` on; the last may be a part of one."""
    with psycopg.connect(cluster.url) as connection:
        found = connection.execute(
            "select floor(extract(epoch from finished_at - %(since)s))::int, count(*)"
            " from worker.jobs_finished where finished_at >= %(since)s and finished_at < %(until)s"
            " group by 1",
            {"since": since, "until": until},
        ).fetchall()
    by_second: dict[int, int] = dict(found)
    return [by_second.get(second, 0) for second in range(max(by_second, default=0) + 1)]


def check(cluster: Cluster, enqueued: int) -> None:
    """Each row is finished, once."""
    with psycopg.connect(cluster.url) as connection:
        found = connection.execute(
            "select count(*), count(distinct (args->>'i')::bigint), min(attempt), max(attempt)"
            " from worker.jobs_finished where state = 'done'"
        ).fetchone()
    assert found == (enqueued, enqueued, 1, 1), f"{found} of {enqueued} rows enqueued"
    assert server.left(cluster) == 0


def _spawned(spawn: SpawnContext, target: Any, *given: Any) -> SpawnProcess:
    process = spawn.Process(target=target, args=given)
    process.start()
    return process


def _stop(process: SpawnProcess) -> None:
    process.terminate()
    process.join(ENDS_WITHIN)
    assert process.exitcode == 0, f"a process ended with {process.exitcode}"


def _until(reached: Any, processes: list[SpawnProcess]) -> None:
    until = time.monotonic() + ENDS_WITHIN
    while not reached():
        assert time.monotonic() < until, f"not within {ENDS_WITHIN:.0f} s"
        assert all(one.is_alive() for one in processes), "a process has ended"
        time.sleep(0.01)
