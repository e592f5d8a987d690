"""What a worker tells of itself over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any

import asyncpg
import pytest

from tests.facts import until
from tests.workers import Running
from worker.app import App
from worker.errors import UsageError
from worker.health import Health


async def asked(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
    """The code and what was told."""

    def ask() -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
            return response.status, json.loads(body) if body else {}
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


class Server:
    """Of a worker that is said to be ready or not."""

    def __init__(self) -> None:
        self.ready = True
        self.health = Health("127.0.0.1:0", lambda: {"ready": self.ready, "slots": 4})

    async def __aenter__(self) -> Server:
        await self.health.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.health.close()


@pytest.mark.parametrize(
    ("path", "ready", "code"),
    [
        ("/livez", True, 200),
        ("/livez", False, 200),
        ("/readyz", True, 200),
        ("/readyz", False, 503),
        ("/healthz?verbose", True, 200),
        ("/healthz", False, 503),
    ],
)
async def test_the_code_tells_whether_it_is_ready(path: str, ready: bool, code: int) -> None:
    async with Server() as server:
        server.ready = ready
        assert await asked(server.health.port, path) == (code, {"ready": ready, "slots": 4})


async def test_what_is_not_asked_for_is_not_told() -> None:
    async with Server() as server:
        assert await asked(server.health.port, "/metrics") == (404, {})
        assert await asked(server.health.port, "/livez", "HEAD") == (200, {})
        code, _ = await asked(server.health.port, "/livez", "POST")
        assert code == 405


@pytest.mark.parametrize("said", [b"\r\n\r\n", b"GET\r\n\r\n", b"x" * 20_000, b"\x00\xff\r\n\r\n"])
async def test_nonsense_ends_only_its_own_connection(said: bytes) -> None:
    unexpected: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: unexpected.append(about))
    async with Server() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.health.port)
        writer.write(said)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        assert not answer.startswith(b"HTTP/1.1 200")
        writer.close()
        assert (await asked(server.health.port, "/livez"))[0] == 200
    assert unexpected == []


async def test_an_address_that_is_taken() -> None:
    async with Server() as server:
        with pytest.raises(UsageError, match="nothing can listen on"):
            await Health(f"127.0.0.1:{server.health.port}", dict).start()


async def test_a_worker_tells_how_it_is_and_how_its_pool_is_used(
    db_url: str, apg: asyncpg.Connection
) -> None:
    app = App()
    go_on = asyncio.Event()

    @app.handler("write")
    async def write(session: asyncpg.Connection) -> None:
        await go_on.wait()

    running = Running(app, db_url, health="127.0.0.1:0", pool_size=2)
    await running.start()
    assert running.worker.health is not None
    port = running.worker.health.port
    code, told = await asked(port, "/readyz")
    assert code == 200
    assert told["worker"] == running.id
    assert told["pools"] == {"asyncpg": {"size": 2, "in_use": 0}}
    await apg.execute("insert into worker.jobs (kind) select 'write' from generate_series(1, 3)")

    async def pool_is_used() -> bool:
        _, told = await asked(port, "/healthz")
        pools: dict[str, Any] = told["pools"]
        assert pools["asyncpg"]["in_use"] <= 2
        return bool(pools["asyncpg"]["in_use"] == 2 and told["running"] == 3)

    await until(pool_is_used)
    go_on.set()
    await until(lambda: running.worker.running == [])
    _, told = await asked(port, "/healthz")
    assert told["pools"]["asyncpg"]["in_use"] == 0
    go_on.clear()
    await apg.execute("insert into worker.jobs (kind) values ('write')")
    await until(lambda: running.worker.running)
    running.worker.stop()
    code, told = await asked(port, "/readyz")
    assert (code, told["draining"]) == (503, True)
    assert (await asked(port, "/livez"))[0] == 200
    go_on.set()
    await running.stop()
    assert running.report is not None
    assert running.report.settled == 4
    with pytest.raises(ConnectionRefusedError):
        await asked(port, "/livez")


async def test_an_adaptive_worker_tells_its_present_slots(db_url: str) -> None:
    app = App()

    @app.handler("write")
    async def write() -> None: ...

    running = Running(app, db_url, health="127.0.0.1:0", concurrency="2-20")
    await running.start()
    assert running.worker.health is not None
    _, told = await asked(running.worker.health.port, "/healthz")
    assert told["slots"] == 2
    await running.stop()
