"""Rows for tests of what needs no database."""

from __future__ import annotations

import datetime as dt
from typing import Any

from worker.moment import seconds_of
from worker.row import Row

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def row(**fields: Any) -> Row:
    """A claimed row of worker.jobs, on its first attempt unless said otherwise. Moments are given
    as datetimes: due_at, created_at, claimed_at."""
    given: dict[str, Any] = {
        "source": "jobs",
        "owner": 1,
        "key": 7,
        "queue": "default",
        "kind": "charge",
        "priority": 0,
        "due": NOON,
        "token": 1,
        "attempt": 1,
        "max_attempts": None,
        "crashes": 0,
        "tenant": None,
        "trace": None,
        "args": "{}",
        "created": NOON,
        "claimed": NOON + dt.timedelta(seconds=1),
    }
    given |= {name.removesuffix("_at"): value for name, value in fields.items()}
    moments = {name: seconds_of(given[name]) for name in ("due", "created", "claimed")}
    return Row(**{**given, **moments})
