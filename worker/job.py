"""A job to enqueue: what a producer says of a row before it has an id."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


# Not frozen: that would make a Job three times as dear, a tenth of what enqueueing it costs.
@dataclass(slots=True, kw_only=True)
class Job:
    """One job.

    kind: names the handler. args: its arguments by name; anything JSON, and what pydantic writes as
        JSON: dates, UUIDs, decimals, dataclasses, models.
    priority: lower runs first, -32768 to 32767.
    due_at: when to run, with a time zone; delay: seconds (or a timedelta) from the database's
        now(). Default: now.
    tenant: the key that fairness and limits go by.
    unique_key: at most one live job of the kind has it. unique_for: seconds (or a timedelta) during
        which no other that asks for a period is enqueued with that key, whatever became of the
        first.
    max_attempts: goes before the handler's own policy. trace: a W3C traceparent.
    """

    kind: str = field(kw_only=False)
    args: Mapping[str, Any] = field(default_factory=dict, kw_only=False)
    queue: str = "default"
    priority: int = 0
    due_at: dt.datetime | None = None
    delay: float | dt.timedelta | None = None
    tenant: str | None = None
    unique_key: str | None = None
    unique_for: float | dt.timedelta | None = None
    max_attempts: int | None = None
    trace: str | None = None
