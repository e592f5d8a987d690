"""Calls to an example's API, with the standard library alone: use your own HTTP client.

The API's address is in EXAMPLE_API.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from typing import Any
from urllib.parse import urlsplit

VARIABLE = "EXAMPLE_API"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Message
    body: Any


def call(
    method: str, path: str, body: Any = None, *, key: str | None = None, url: str | None = None
) -> Answer:
    """Blocks until the answer is there, however long that is. OSError or HTTPException without.

    key: sent as Idempotency-Key. url: of another API.
    """
    headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
    connection = http.client.HTTPConnection(_netloc(url))
    try:
        connection.request(method, path, _text(body), headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, json.loads(answer.read()))
    finally:
        connection.close()


async def call_async(method: str, path: str, body: Any = None) -> Answer:
    """The same on the event loop."""
    host, port = _netloc(None).split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        text = _text(body) or b""
        head = f"{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {len(text)}\r\n\r\n"
        writer.write(head.encode() + text)
        status = (await reader.readline()).split()
        if len(status) < 2:
            raise ConnectionResetError("the API closed the connection")
        headers = BytesParser().parsebytes(await reader.readuntil(b"\r\n\r\n"))
        return Answer(int(status[1]), headers, json.loads(await reader.read()))
    finally:
        writer.close()


def _netloc(url: str | None) -> str:
    return urlsplit(url or os.environ[VARIABLE]).netloc


def _text(body: Any) -> bytes | None:
    return None if body is None else json.dumps(body).encode()
