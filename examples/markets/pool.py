"""How many connections the handlers' pool has open and how many are in use: as the server tells,
and as the worker's own health endpoint does."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psycopg

from examples.common import http
from examples.common.crew import Member
from worker.url import DatabaseURL

EVERY = 0.01  # seconds between two samples
SAMPLE = """
select count(*), count(*) filter (where state <> 'idle')
  from pg_stat_activity
 where datname = current_database() and application_name = 'duerow handler'
"""


@dataclass(frozen=True, slots=True)
class PoolUse:
    """most_open, most_used: connections. use: the mean share of `size` that was inside a
    transaction. told: the most in use that the worker told of."""

    size: int
    samples: int
    most_open: int
    most_used: int
    use: float
    told: int


def health_of(worker: Member) -> str | None:
    """Where it tells how it is, once its log says so."""
    found = re.search(r"\bhealth[ =]+(\S+)\n", worker.log.read_text("utf-8"))
    return found and found[1]


def told(address: str) -> tuple[int, int]:
    """What the worker's health endpoint says of its pool: sessions in use, and its size."""
    answer = http.call("GET", "/healthz", url=f"http://{address}")
    [pool] = answer.body["pools"].values()
    return pool["in_use"], pool["size"]


class PoolWatch:
    """Samples while the block runs. size: of the pool. health: where the worker tells of it."""

    def __init__(self, url: DatabaseURL, size: int, health: str) -> None:
        self._url = url
        self._size = size
        self._health = health
        self._told: list[int] = []
        self._samples: list[tuple[int, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PoolWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def found(self) -> PoolUse:
        used = [used for _, used in self._samples]
        return PoolUse(
            self._size,
            len(self._samples),
            max(opened for opened, _ in self._samples),
            max(used),
            sum(used) / len(used) / self._size,
            max(self._told),
        )

    def _watch(self) -> None:
        with psycopg.connect(self._url.psycopg_conninfo(), autocommit=True) as connection:
            while not self._ended.wait(EVERY):
                row: Any = connection.execute(SAMPLE).fetchone()
                self._samples.append((row[0], row[1]))
                self._told.append(told(self._health)[0])
