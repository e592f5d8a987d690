"""The worker's own services: restarted when they fail, never missing without a word."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import pytest

from tests.facts import until
from tests.workers import Running, job, put
from worker import App
from worker.events import Events, ServiceFailed, WorkerDraining
from worker.link import LinkDown
from worker.service import FAILURES_MOST, Service, ServiceDied


def told() -> tuple[list[Any], Events]:
    events: list[Any] = []
    return events, Events((events.append,))


async def test_it_steps_until_it_says_so() -> None:
    pauses: list[float | None] = [0.0, 0.0, None]
    _, events = told()

    async def step() -> float | None:
        return pauses.pop(0)

    await asyncio.wait_for(Service("s", step, events).run(), 5)
    assert not pauses


async def test_it_is_woken_from_its_rest() -> None:
    wake, steps = asyncio.Event(), []
    _, events = told()

    async def step() -> float | None:
        steps.append(time.monotonic())
        return 3600.0 if len(steps) < 3 else None

    running = asyncio.create_task(Service("s", step, events, wake=wake).run())
    for n in (1, 2):
        await until(lambda n=n: len(steps) == n)
        wake.set()
    await asyncio.wait_for(running, 5)


async def test_a_wake_during_a_step_is_not_lost() -> None:
    wake, steps = asyncio.Event(), []
    _, events = told()

    async def step() -> float | None:
        steps.append(1)
        wake.set()
        return 3600.0 if len(steps) < 5 else None

    await asyncio.wait_for(Service("s", step, events, wake=wake).run(), 5)


async def test_it_goes_on_after_a_failure() -> None:
    seen, events = told()
    answers: list[Any] = [ValueError("once"), 0.0, ValueError("twice"), None]

    async def step() -> float | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        result: float | None = answer
        return result

    await asyncio.wait_for(Service("s", step, events).run(), 5)
    assert [str(event.error) for event in seen] == ["once", "twice"]


async def test_an_outage_is_no_failure() -> None:
    seen, events = told()
    tries = []

    class Pausing:
        def pause(self) -> float:
            return 0.0

    async def step() -> float | None:
        tries.append(1)
        if len(tries) < 3 * FAILURES_MOST:
            raise LinkDown("down")
        return None

    service = Service("s", step, events, link=Pausing())  # type: ignore[arg-type]
    await asyncio.wait_for(service.run(), 5)
    assert not seen


async def test_it_gives_up_after_many_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, events = told()

    async def step() -> float | None:
        raise ValueError("always")

    async def no_time(seconds: float) -> None:
        pauses.append(seconds)

    pauses: list[float] = []
    monkeypatch.setattr("worker.service.asyncio.sleep", no_time)
    with pytest.raises(ServiceDied):
        await Service("s", step, events).run()
    assert len(seen) == FAILURES_MOST
    assert pauses == sorted(pauses)
    assert max(pauses) <= 5


# Without "settle" nothing can be written: the heartbeat gives the rows back and ends the process.
@pytest.mark.parametrize("name", ["claim", "chores", "fence"])
async def test_a_worker_without_one_of_its_services_ends(
    db_url: str, apg: asyncpg.Connection, name: str
) -> None:
    """Never healthy but idle. What runs is waited for, or given back; nothing stays claimed."""
    app, release = App(), asyncio.Event()

    @app.handler
    async def work() -> None:
        await release.wait()

    keys = await put(apg, "work", count=6)
    one = Running(app, db_url, concurrency=2, grace=10.0)
    task = asyncio.create_task(one.worker.run())
    await until(lambda: len(one.worker.running) == 2)
    [service] = [t for t in asyncio.all_tasks() if t.get_name() == name]
    service.cancel()
    await until(lambda: one.seen.of(WorkerDraining))
    release.set()
    with pytest.raises(ServiceDied, match=f"the service '{name}' has ended"):
        await asyncio.wait_for(task, 30)
    assert [event.service for event in one.seen.of(ServiceFailed)] == [name]
    states = sorted([(await job(apg, key))["state"] for key in keys])
    assert states == ["done"] * 2 + ["due"] * 4
    stopped = "select stopped_at is not null from worker.workers"
    assert await apg.fetchval(stopped)
