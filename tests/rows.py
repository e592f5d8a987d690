"""Rows for tests of what needs no database."""

from __future__ import annotations

import datetime as dt
from typing import Any

from worker.row import Row

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def row(**fields: Any) -> Row:
    """A claimed row of worker.jobs, on its first attempt unless said otherwise."""
    given = {
        "source": "jobs",
        "owner": 1,
        "key": 7,
        "queue": "default",
        "kind": "charge",
        "priority": 0,
        "due_at": NOON,
        "token": 1,
        "attempt": 1,
        "max_attempts": None,
        "crashes": 0,
        "tenant": None,
        "trace": None,
        "args": "{}",
        "created_at": NOON,
        "claimed_at": NOON + dt.timedelta(seconds=1),
    }
    return Row(**{**given, **fields})
