"""A claimed row, as it travels through the worker."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from worker.moment import moment


@dataclass(slots=True, eq=False)
class Row:
    """One claim on one row. The claim is the pair (owner, token).

    source: "jobs", or the name of an adopted table.
    key: the row's key in its source; for jobs the id.
    key_text: the same as the database writes it, where that is not str(key).
    args: a job's arguments as JSON text; the columns of an adopted table's row by name, or the
        PayloadInvalid that says why they cannot be read.
    due: when this run fell due, retries included. This and other moments: seconds since 1970.
    occurrence: the due column of an adopted table's row as it was claimed.
    attempt: which run this is, from 1. crashes: runs that ended with their worker's death.
    claimed: by the database's clock.
    not_before: when it may start, on time.monotonic()'s clock, where a rate says so. not_after: and
        when it has missed its turn.
    """

    source: str
    owner: int
    key: Any
    queue: str
    kind: str
    priority: int
    due: float
    token: int
    attempt: int
    max_attempts: int | None
    crashes: int
    tenant: str | None
    trace: str | None
    args: Any
    created: float
    claimed: float
    occurrence: dt.datetime | None = None
    key_text: str | None = None
    not_before: float | None = None
    not_after: float | None = None

    @property
    def wait(self) -> float:
        """Seconds from due to claimed."""
        return self.claimed - self.due

    @property
    def due_at(self) -> dt.datetime:
        return moment(self.due)

    @property
    def created_at(self) -> dt.datetime:
        return moment(self.created)

    @property
    def claimed_at(self) -> dt.datetime:
        return moment(self.claimed)

    @property
    def row_key(self) -> str:
        """The key as worker.attempts has it."""
        return str(self.key) if self.key_text is None else self.key_text
