"""Claims while rows pass through under an open snapshot, which keeps what they leave dead in place.

Two databases on one server, in turn: in one a REPEATABLE READ transaction has looked, and stays
open until all rows have passed; in the other none is open. Rows are enqueued as others are settled,
as on a queue that is always in use. At each of the points so many claims of 100 are timed, with
their looks; and, where the snapshot is, some without a floor, from the beginning of the index:
what a claim would be that does not know where the last one ended. Then the snapshot is released.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import psycopg

from benchmarks import report, server
from benchmarks.passing import Passing
from tests.postgres import Cluster

LIMIT = 100
READY = 50 * LIMIT  # rows that are due at any time, at least
TURN = 50 * LIMIT  # rows that pass before it is the other's turn
SHARES = (0.0, 0.05, 0.2, 1.0)  # of the rows that pass: where claims are timed
TURNS = 4  # at each point
FREE, HELD, UNKNOWING = "none held", "held", "held, claims without a floor"

Timed = defaultdict[str, list[float]]


class Database:
    """One of the two, with a worker's claims."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.passing = Passing(url)
        self._filler = psycopg.connect(url, autocommit=True)
        self._enqueued = 0

    async def start(self) -> None:
        await self.passing.start()
        self._fill()
        self._filler.execute("vacuum analyze worker.jobs")
        await self.passing.step(LIMIT)  # prepares the statements

    async def close(self) -> None:
        await self.passing.close()
        self._filler.close()

    async def move(self, rows: int) -> None:
        """So many rows pass through."""
        until = self.passing.passed + rows
        while self.passing.passed < until:
            self._fill()
            await self.passing.step(min(LIMIT, until - self.passing.passed))

    async def time(self, claims: int, found: Timed) -> None:
        for _ in range(claims):
            self._fill()
            cpu = self.passing.cpu()
            took = await self.passing.step(LIMIT)
            found["CPU ms"].append(self.passing.cpu() - cpu)
            found["claim ms"].append(took)
            if self.passing.looked:
                found["looks of them, ms"].append(took)

    async def time_unknowing(self, claims: int, found: Timed) -> None:
        for _ in range(claims):
            self._fill()
            cpu = self.passing.cpu()
            found["claim ms"].append(await self.passing.from_the_beginning(LIMIT))
            found["CPU ms"].append(self.passing.cpu() - cpu)

    def _fill(self) -> None:
        if self._enqueued - self.passing.passed < READY:
            server.fill(self._filler, READY)
            self._enqueued += READY


class Snapshot:
    """A transaction that has looked once, and stays open until it is released."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = psycopg.connect(url)
        self._connection.execute("set transaction isolation level repeatable read")
        self._connection.execute("select count(*) from worker.jobs")
        self._xmin = self._held()
        assert self._xmin is not None

    def release(self) -> None:
        """Fails if it has not been the same one all the time."""
        assert self._held() == self._xmin, f"not {self._xmin} but {self._held()} was held"
        self._connection.close()

    def _held(self) -> str | None:
        """What keeps dead rows in place, as the server tells."""
        with psycopg.connect(self._url) as other:
            found = other.execute(
                "select backend_xmin::text from pg_stat_activity where pid = %s",
                [self._connection.info.backend_pid],
            ).fetchone()
            assert found is not None, "the snapshot's transaction has ended"
            xmin: str | None = found[0]
            return xmin


def run(rows: int, rounds: int, slots: int) -> dict[str, Any]:
    """rows: that pass while the snapshot is held. rounds: claims that are timed at each point."""
    with server.server() as cluster:
        return asyncio.run(_run(cluster, rows, rounds))


async def _run(cluster: Cluster, rows: int, claims: int) -> dict[str, Any]:
    free, held = Database(cluster.url), Database(server.another(cluster, "held"))
    points = [int(rows * share) for share in SHARES]
    found: dict[str, dict[str, list[float]]] = {name: {} for name in (FREE, HELD, UNKNOWING)}
    try:
        await free.start()
        await held.start()
        snapshot = Snapshot(held.url)
        begun = held.passing.passed, free.passing.passed
        for point in points:
            await _to(point, (held, begun[0]), (free, begun[1]))
            await _time(found, f"at {point:,}", free, held, claims)
        snapshot.release()
        await _time(found, "after release", free, held, claims)
    finally:
        await free.close()
        await held.close()
    result: dict[str, Any] = {"rows": rows, "points": points, "claims": claims, **found}
    report.show(result)
    return result


async def _to(point: int, *databases: tuple[Database, int]) -> None:
    """Until so many rows have passed since the beginning in both, in turn."""
    while any(one.passing.passed < begun + point for one, begun in databases):
        for one, begun in databases:
            left = begun + point - one.passing.passed
            await one.move(max(0, min(TURN, left)))


async def _time(
    found: dict[str, dict[str, list[float]]], when: str, free: Database, held: Database, claims: int
) -> None:
    timed: dict[str, Timed] = {name: defaultdict(list) for name in found}
    for _ in range(TURNS):
        await held.time(max(1, claims // TURNS), timed[HELD])
        await free.time(max(1, claims // TURNS), timed[FREE])
        await held.time_unknowing(max(1, claims // TURNS // 10), timed[UNKNOWING])
    for name, of in timed.items():
        found[name].update({f"{figure} {when}": values for figure, values in of.items()})
