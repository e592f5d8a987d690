"""Tells over HTTP how a worker is: for Kubernetes, a load balancer, a person with curl.

    GET /livez    200 as long as the event loop answers
    GET /readyz   200 while it takes rows; 503 before that, while it drains and without a database
    GET /healthz  as /readyz

Each answers with the same JSON object. There is nothing secret in it, and no framework behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from worker.errors import UsageError

PATIENCE = 5.0  # seconds that a request may take to come in


class Health:
    """address: `host:port`; without a host, all interfaces. status: what to tell; its `ready`
    decides the code."""

    def __init__(self, address: str, status: Callable[[], dict[str, Any]]) -> None:
        self._address = address
        self._host, self._port = split(address)
        self._status = status
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises UsageError if the address is not to be had."""
        try:
            self._server = await asyncio.start_server(
                self._answer, self._host, self._port, limit=8192
            )
        except OSError as error:
            raise taken(self._address, error) from None

    @property
    def port(self) -> int:
        """Where it listens: of `:0` the system makes a free one."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def address(self) -> str:
        """As it was given, with that port."""
        return at_port(self._address, self.port)

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(response(head, self._status()))
                await writer.drain()
        writer.close()


def split(address: str) -> tuple[str | None, int]:
    """Host and port of `host:port`; no host for all interfaces."""
    host, _, port = address.rpartition(":")
    return host.strip("[]") or None, int(port)


def at_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"


def taken(address: str, error: OSError) -> UsageError:
    """The error for an address that cannot be had."""
    return UsageError(
        f"nothing can listen on {address!r}",
        why=str(error),
        hint="choose another port with --health",
    )


def response(head: bytes, status: dict[str, Any], *, live: bool = True) -> bytes:
    """The answer to a request, of which only the first line matters. live: what /livez says."""
    method, _, rest = head.partition(b" ")
    path = rest.split(b" ")[0].split(b"?")[0]
    code = _code(method, path, ready=status["ready"], live=live)
    body = json.dumps(status).encode() + b"\n" if code != HTTPStatus.NOT_FOUND else b""
    lines = (
        f"HTTP/1.1 {code.value} {code.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    )
    answer = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return answer if method == b"HEAD" else answer + body


def _code(method: bytes, path: bytes, *, ready: bool, live: bool) -> HTTPStatus:
    if method not in (b"GET", b"HEAD"):
        return HTTPStatus.METHOD_NOT_ALLOWED
    match path:
        case b"/livez":
            return HTTPStatus.OK if live else HTTPStatus.SERVICE_UNAVAILABLE
        case b"/readyz" | b"/healthz":
            return HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return HTTPStatus.NOT_FOUND
