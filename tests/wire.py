"""A wire between a client and Postgres that can lose answers, be cut, or go silent."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

READY = b"Z"
DATA_ROW = b"D"


class Wire:
    """Forwards between clients and the server, each connection known by its application_name.

    lose: called with (application name, number of columns of a row in the answer) once an answer
    with rows is complete; True cuts that connection, and the client never sees the answer.
    delay: called likewise; the seconds by which such an answer comes late.
    silent: nothing is forwarded any more, and nobody is told.
    """

    def __init__(self, server: Path) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self.lose: Callable[[str, int], bool] = lambda name, columns: False
        self.delay: Callable[[str, int], float] = lambda name, columns: 0.0
        self.lost = 0
        self.silent = False
        self._audible = asyncio.Event()

    def mute(self) -> None:
        self.silent = True
        self._audible.clear()

    def unmute(self) -> None:
        self.silent = False
        self._audible.set()

    async def connected(self, up: asyncio.StreamReader, down: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        reader, writer = await asyncio.open_unix_connection(str(self._server))
        try:
            first = await up.read(65536)
            writer.write(first)
            name = _application(first)
            ways = (self._forward(up, writer), self._answers(name, reader, down))
            both = [asyncio.create_task(way) for way in ways]
            self._tasks.update(both)
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for way in both:
                way.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            down.close()
            writer.close()
            self._tasks.discard(task)

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._until_audible()
            target.write(data)
            await target.drain()
        raise EOFError

    async def _answers(
        self, name: str, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        """Message by message; from the first row on whole answers, up to ReadyForQuery."""
        data, held, columns = b"", b"", 0
        while more := await source.read(65536):
            data += more
            while (end := _end_of_message(data)) is not None:
                message, data = data[:end], data[end:]
                held += message
                if message[:1] == DATA_ROW:
                    columns = int.from_bytes(message[5:7])
                if columns and message[:1] != READY:
                    continue
                await self._until_audible()
                if columns and (late := self.delay(name, columns)):
                    await asyncio.sleep(late)
                if columns and self.lose(name, columns):
                    self.lost += 1
                    raise EOFError
                target.write(held)
                await target.drain()
                held, columns = b"", 0
        raise EOFError

    async def _until_audible(self) -> None:
        if self.silent:
            await self._audible.wait()

    async def end(self) -> None:
        self.unmute()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _application(startup: bytes) -> str:
    """Of a startup message: pairs of zero-ended strings after eight bytes."""
    words = startup[8:].split(b"\0")
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    return pairs.get(b"application_name", b"").decode()


def _end_of_message(data: bytes) -> int | None:
    """Where the first message ends: a letter, then four bytes of length that count themselves."""
    if len(data) < 5:
        return None
    end = 1 + int.from_bytes(data[1:5])
    return end if len(data) >= end else None


@asynccontextmanager
async def wired(url: str) -> AsyncIterator[tuple[Wire, str]]:
    """A wire in front of the server of `url`, and the URL that leads through it."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    server = Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"
    with tempfile.TemporaryDirectory(prefix="duerow-wire-") as directory:
        wire = Wire(server)
        own = Path(directory) / ".s.PGSQL.5432"
        listening = await asyncio.start_unix_server(wire.connected, str(own))
        through = f"postgresql://{parts.username}@{parts.path}?host={quote(directory)}&port=5432"
        try:
            yield wire, through
        finally:
            listening.close()
            with contextlib.suppress(asyncio.CancelledError):
                await wire.end()
