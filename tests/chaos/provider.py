"""An outside service on the loopback that counts what reaches it: real HTTP, in its own process.

GET /calls gives [[key, began, ended, status], ...]; PUT /status/500 sets what all others answer.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from types import TracebackType
from typing import NamedTuple

LATENCY = 0.01
PORT = "CHAOS_PROVIDER"  # the variable that tells handlers where it is


class Call(NamedTuple):
    """Seconds of the wall clock."""

    key: str
    began: float
    ended: float
    status: int


class Provider:
    """Its process; ends with the block."""

    def __enter__(self) -> Provider:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.provider"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def calls(self) -> list[Call]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/calls") as answer:
            return [Call(*call) for call in json.load(answer)]

    def answer(self, status: int) -> None:
        url = f"http://127.0.0.1:{self.port}/status/{status}"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT")).close()


async def call(port: int, key: str) -> int:
    """Its answer's status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"POST /{key} HTTP/1.1\r\nHost: provider\r\nConnection: close\r\n\r\n".encode()
        )
        status = await reader.readline()
        await reader.read()
        return int(status.split()[1])
    finally:
        writer.close()


class _Server:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.status = 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, path, _ = (await reader.readline()).decode().split()
        began = time.time()
        while (await reader.readline()).strip():
            pass
        status, body = 200, ""
        if method == "GET":
            body = json.dumps(self.calls)
        elif method == "PUT":
            self.status = int(path.rpartition("/")[2])
        else:
            await asyncio.sleep(LATENCY)
            status = self.status
            self.calls.append(Call(path[1:], began, time.time(), status))
        head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write((head + body).encode())
        await writer.drain()
        writer.close()


async def _main() -> None:
    server = await asyncio.start_server(_Server().serve, "127.0.0.1", 0, backlog=512)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)  # until who started it ends


if __name__ == "__main__":
    asyncio.run(_main())
