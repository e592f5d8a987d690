"""Duerow: runs rows that fall due in Postgres.

from worker import App, Context

app = App()


@app.handler("charge", timeout=30)
async def charge(donation_id: int, context: Context) -> None: ...
"""

from __future__ import annotations

from worker.app import App, Task
from worker.context import Context
from worker.errors import DuerowError, PayloadInvalid
from worker.job import Job
from worker.outcome import Cancel, Dead, Retry, Snooze
from worker.retry import PermanentError, RetryPolicy, wait_spread

__version__ = "0.1.0"

__all__ = [
    "App",
    "Cancel",
    "Context",
    "Dead",
    "DuerowError",
    "Job",
    "PayloadInvalid",
    "PermanentError",
    "Retry",
    "RetryPolicy",
    "Snooze",
    "Task",
    "__version__",
    "wait_spread",
]
