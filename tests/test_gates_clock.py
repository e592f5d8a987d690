"""What a claim's answer that comes late does not do to the starts that it gives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from worker.events import Events
from worker.flow.gatekeeper import Gatekeeper
from worker.link import Link, Outage
from worker.row import Row
from worker.source import Stream
from worker.url import DatabaseURL

STREAM = Stream("default", "send", 0)
DELAY = 1.0


class SlowToHear(Link):
    """Answers lie unread for `delay` seconds, as while the event loop is busy.

    asked, answered: when the last statement was sent, and when its answer was there.
    """

    delay = 0.0
    asked = answered = 0.0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with super().transaction() as connection:
            self._inner = connection
            yield self

    async def fetch(self, sql: str, *params: Any) -> Any:
        if not hasattr(self, "_inner"):
            return await super().fetch(sql, *params)
        self.asked = time.monotonic()
        records = await self._inner.fetch(sql, *params)
        self.answered = time.monotonic()
        await asyncio.sleep(self.delay)
        return records


async def test_an_answer_that_is_heard_late_does_not_put_starts_off(
    db_url: str, apg: asyncpg.Connection
) -> None:
    await apg.execute(
        "insert into worker.gates (kind, rate, burst, set_by) values ('send', 10, 1, 'me')"
    )
    worker = await apg.fetchval(
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease)"
        " values ('one', 'h', 1, '0', '{}', '{}', 1, '1 h') returning id"
    )
    events = Events()
    link = SlowToHear("claim", DatabaseURL.parse(db_url), Outage(events))
    gates = Gatekeeper([("default", "send")], link, events)
    await gates.look()
    trips = []
    try:
        for _ in range(10):
            async with gates.passage(STREAM, [], worker) as passage:
                assert passage is not None
                trips.append(link.answered - link.asked)
        link.delay = DELAY
        async with gates.passage(STREAM, [], worker) as passage:
            assert passage is not None
            read_before = link.answered
            [gate] = passage.admission.gates
            gate.full_in = 0.0
            row = a_row(worker)
            passage.admit([row])
    finally:
        await link.close()
    assert row.not_before is None or row.not_before <= read_before + min(trips) + DELAY / 2
    assert row.not_before is not None, "a rate says when"


def a_row(worker: int) -> Row:
    return Row(
        "jobs", worker, 1, "default", "send", 0, 0.0, 1, 1, None, 0, None, None, "{}", 0.0, 0.0
    )
