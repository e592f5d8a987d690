"""An outside API on the loopback: real HTTP from its own process, slow, and failing on request.

It prints its URL and serves until its stdin is closed, so that it cannot outlive who started it.

Every API of the examples answers, besides what it is there for:

PUT /faults    {"/accounts/@user13": {"status": 500}, "/accounts/@user7": {"latency": 30}}
               from now on requests of these paths go wrong, or take so many seconds (null: they
               are not answered until the faults are others)
GET /requests  [{"method", "path", "key", "began", "status"}, ...] of all requests but these two;
               key: its Idempotency-Key, status: null while there is no answer
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from examples.common.clock import Clock
from worker.demo.loopback import Loopback, answer

RETRY_AFTER = 1  # seconds, with a 429: HTTP knows whole ones only


@dataclass(slots=True)
class Seen:
    """A request. began: seconds since the epoch."""

    method: str
    path: str
    key: str | None
    began: float
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: Any
    headers: Mapping[str, str] | None = None


class API(Loopback):
    """Subclasses say how long a request takes, and what is answered.

    most: how many requests it works on at a time; what is above that is answered 429.
    """

    def __init__(self, clock: Clock, most: int = 1000) -> None:
        super().__init__(_Exchange)
        self.clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._working = 0
        self._seen: list[Seen] = []
        self._faults: dict[str, dict[str, Any]] = {}
        self._changed = threading.Event()

    def latency(self, method: str, path: str) -> float:
        """Seconds of the scenario."""
        raise NotImplementedError

    def reply(self, method: str, path: str, body: Any) -> Reply:
        raise NotImplementedError

    def exchange(self, method: str, path: str, key: str | None, body: Any) -> Reply:
        """From a request to its reply, in its own time."""
        match method, path:
            case "PUT", "/faults":
                self._faults = dict(body)
                self._changed.set()
                self._changed = threading.Event()
                return Reply(200, {})
            case "GET", "/requests":
                with self._lock:
                    return Reply(200, [asdict(seen) for seen in self._seen])
        seen = Seen(method, path, key, time.time())
        with self._lock:
            self._seen.append(seen)
            self._working += 1
            too_many = self._working > self._most
        try:
            reply = self._too_many() if too_many else self._slowly(method, path, body)
            seen.status = reply.status
        finally:
            with self._lock:
                self._working -= 1
        return reply

    def _too_many(self) -> Reply:
        return Reply(429, {"error": "slow down"}, {"Retry-After": str(RETRY_AFTER)})

    def _slowly(self, method: str, path: str, body: Any) -> Reply:
        changed, fault = self._changed, self._faults.get(path, {})
        latency = fault.get("latency", self.latency(method, path))
        if latency is None:
            changed.wait()
            latency = 0.0
        time.sleep(self.clock.real(latency))
        if "status" in fault:
            return Reply(fault["status"], {"error": "try again"})
        return self.reply(method, path, body)


class _Exchange(BaseHTTPRequestHandler):
    server: API

    def do_GET(self) -> None:
        self._exchange()

    def do_POST(self) -> None:
        self._exchange()

    def do_PUT(self) -> None:
        self._exchange()

    def _exchange(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        key = self.headers.get("Idempotency-Key")
        reply = self.server.exchange(self.command, self.path, key, body)
        answer(self, reply.status, reply.body, reply.headers)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: /requests tells."""
