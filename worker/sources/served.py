"""The sources of the rows that an app has handlers for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from worker.errors import UsageError
from worker.events import SourceCaution
from worker.registry import Registry
from worker.source import Source
from worker.sources.jobs import Jobs
from worker.url import DatabaseURL, connect


async def served(
    registry: Registry,
    queues: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    url: DatabaseURL,
    connect_timeout: float,
    tell: Callable[[SourceCaution], None],
) -> list[Source]:
    """The source of the jobs of these (queue, kind) pairs, and one for each table whose name is
    among the queues. connect_timeout: seconds. tell: is given what their owner should know.

    Raises UsageError where there is none, and what is wrong with an adopted table.
    """
    fair = {handler.kind: handler.fair for handler in registry.jobs if handler.fair is not None}
    sources: list[Source] = [Jobs(pairs, fair)] if pairs else []
    handlers = [handler for handler in registry if handler.queue in queues]
    tables = [handler for handler in handlers if handler.table is not None]
    if tables:
        # 0.7 MB that a worker of jobs alone can do without
        from worker.sources.adopt import adopted, refuse_shared

        connection = await connect(url, timeout=connect_timeout)
        try:
            rows = [await adopted(connection, handler, tell) for handler in tables]
        finally:
            await connection.close(timeout=2)
        refuse_shared(rows)
        sources += rows
    if not sources:
        raise UsageError(
            f"no handler serves the queues {', '.join(queues)}",
            why=f"the app's handlers name {', '.join(registry.queues)}",
            hint="leave --queues out, or name some of these",
        )
    return sources
