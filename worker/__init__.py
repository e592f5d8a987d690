"""Duerow: runs rows that fall due in Postgres.

from worker import App, Context

app = App()


@app.handler("charge", timeout=30)
async def charge(donation_id: int, context: Context) -> None: ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.app import App, Task
    from worker.batching import Batching
    from worker.context import Context
    from worker.errors import DuerowError, PayloadInvalid
    from worker.fair import Fair
    from worker.items import Batch, Item
    from worker.job import Job
    from worker.lazy import Lazy
    from worker.outcome import Cancel, Dead, Retry, Snooze, Throttled
    from worker.producer import Enqueued, enqueue, enqueue_many
    from worker.redrive import Redrive
    from worker.retry import PermanentError, RetryPolicy, wait_spread
    from worker.schedules.add import add_schedule, remove_schedule
    from worker.schedules.schedule import Schedule
    from worker.spread import Spread

__version__ = "0.1.0"

__all__ = [
    "App",
    "Batch",
    "Batching",
    "Cancel",
    "Context",
    "Dead",
    "DuerowError",
    "Enqueued",
    "Fair",
    "Item",
    "Job",
    "Lazy",
    "PayloadInvalid",
    "PermanentError",
    "Redrive",
    "Retry",
    "RetryPolicy",
    "Schedule",
    "Snooze",
    "Spread",
    "Task",
    "Throttled",
    "__version__",
    "add_schedule",
    "enqueue",
    "enqueue_many",
    "remove_schedule",
    "wait_spread",
]

_HOMES = {
    "app": ("App", "Task"),
    "batching": ("Batching",),
    "context": ("Context",),
    "errors": ("DuerowError", "PayloadInvalid"),
    "fair": ("Fair",),
    "items": ("Batch", "Item"),
    "job": ("Job",),
    "lazy": ("Lazy",),
    "producer": ("Enqueued", "enqueue", "enqueue_many"),
    "outcome": ("Cancel", "Dead", "Retry", "Snooze", "Throttled"),
    "redrive": ("Redrive",),
    "spread": ("Spread",),
    "retry": ("PermanentError", "RetryPolicy", "wait_spread"),
    "schedules.add": ("add_schedule", "remove_schedule"),
    "schedules.schedule": ("Schedule",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first asked for: `worker --help` and the embedded server's
    processes need none of what an App needs, which takes a third of a second to import."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'worker' has no attribute {name!r}")
    module = import_module(f"worker.{_HOME_OF[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
