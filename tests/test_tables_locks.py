"""Adopting a table under write traffic: nothing is rewritten, and no writer waits for long.

A short form of benchmarks/adopt.py, whose waits are read from the server's own pg_locks.
"""

from __future__ import annotations

from typing import Any

import psycopg

from benchmarks.adopt import TABLE, Adoption, measure
from tests.adoption import columns, index_is_valid, tables
from worker.tables.bookkeeping import NAMES

ROWS = 20_000
LOCK_TIMEOUT = 0.1
REPORT = 1.5  # seconds: many tries long
SLACK = 0.6  # for the ALTER itself, and a machine that does other things too
MEASUREMENTS = 4  # at most: one in which the whole machine stood still tells nothing


def measured(url: str, **how: float) -> Adoption:
    """The first measurement that is within the bounds, or the last."""
    for _ in range(MEASUREMENTS):
        seen = measure(url, ROWS, writers=2, before=0.2, **how)
        if max(seen.waited - LOCK_TIMEOUT, seen.locked) <= SLACK:
            break
    return seen


def test_writers_wait_no_longer_than_the_lock_timeout(
    pg: psycopg.Connection[Any], db_url: str
) -> None:
    """Even while a report is open, for which the ALTER has to wait much longer."""
    assert REPORT > LOCK_TIMEOUT + 2 * SLACK
    seen = measured(db_url, report=REPORT, lock_timeout=LOCK_TIMEOUT)
    assert seen.took > REPORT / 2  # it did have to wait
    assert 0 < seen.waited <= LOCK_TIMEOUT + SLACK
    assert seen.locked <= SLACK
    assert len(seen.during) > 50
    assert not seen.rewritten
    assert columns(pg, TABLE) == set(NAMES)
    assert index_is_valid(pg, f"duerow_due_{TABLE}")
    assert tables(db_url, "check", TABLE).code == 0


def test_nothing_is_rewritten(pg: psycopg.Connection[Any], db_url: str) -> None:
    seen = measured(db_url, report=0, lock_timeout=1)
    assert not seen.rewritten
    assert seen.locked <= SLACK
    assert (
        pg.execute(
            f"select count(*) from {TABLE} where duerow_token = 0 and duerow_attempt = 0"
        ).fetchone()
        == pg.execute(f"select count(*) from {TABLE}").fetchone()
    )
