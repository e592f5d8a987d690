"""The supervisor's port for health checks: HTTP without a thread and without an event loop.

A request waits until each process has said how it is, for half a second at the most.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

from worker.health import PATIENCE, at_port, response, split, taken
from worker.supervise.crew import Crew

ANSWER_WITHIN = 0.5  # seconds; whoever asks may wait for a second only, as Kubernetes does
LONGEST = 8192  # bytes of a request's head
NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # a machine without IPv6, say


@dataclass(slots=True, eq=False)
class Request:
    """since: when the connection came; once there is a head, when that was there."""

    connection: socket.socket
    since: float = field(default_factory=time.monotonic)
    head: bytes = b""

    @property
    def complete(self) -> bool:
        return b"\r\n\r\n" in self.head


class Port:
    """address: as of the setting `health`. Raises UsageError if it is not to be had."""

    def __init__(self, address: str, crew: Crew, selector: selectors.BaseSelector) -> None:
        self._crew = crew
        self._selector = selector
        self._address = address
        self._requests: list[Request] = []
        try:
            self._listening = _bound(*split(address))
        except OSError as error:
            raise taken(address, error) from None
        for one in self._listening:
            selector.register(one, selectors.EVENT_READ, lambda one=one: self._accept(one))

    @property
    def address(self) -> str:
        """As it was given, with the port that was got: of `:0` the system makes a free one."""
        return at_port(self._address, self._listening[0].getsockname()[1])

    @property
    def pause(self) -> float | None:
        """Seconds until `step` has something to do even if nothing comes."""
        now = time.monotonic()
        ends = (r.since + (ANSWER_WITHIN if r.complete else PATIENCE) for r in self._requests)
        return max(0.0, min(ends) - now) if self._requests else None

    def step(self, *, draining: bool) -> None:
        """Answers whom it can, and gives up on whom it must."""
        now = time.monotonic()
        for request in list(self._requests):
            waited = now - request.since
            if not request.complete:
                if waited >= PATIENCE:
                    self._drop(request)
            elif waited >= ANSWER_WITHIN or self._crew.answered(request.since):
                status = self._crew.status(request.since, draining=draining)
                live = self._crew.answered(request.since)
                with suppress(OSError):
                    request.connection.settimeout(ANSWER_WITHIN)
                    request.connection.sendall(response(request.head, status, live=live))
                self._drop(request)

    def close(self) -> None:
        """Also in a forked child: it must not hold the port when its supervisor is gone."""
        for one in self._listening:
            one.close()
        for request in self._requests:
            request.connection.close()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listening.accept()
            connection.setblocking(False)
            request = Request(connection)
            self._requests.append(request)
            self._selector.register(
                connection, selectors.EVENT_READ, lambda: self._receive(request)
            )

    def _receive(self, request: Request) -> None:
        try:
            data = request.connection.recv(LONGEST)
        except OSError:
            data = b""
        request.head += data
        if not data or len(request.head) > LONGEST:
            self._drop(request)
        elif request.complete:
            self._selector.unregister(request.connection)
            request.since = time.monotonic()
            self._crew.ask()

    def _drop(self, request: Request) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(request.connection)
        self._requests.remove(request)
        request.connection.close()


def _bound(host: str | None, port: int) -> list[socket.socket]:
    """A socket for each address of the host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, _, address in found:
        try:
            one = socket.socket(family, kind, protocol)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen()
            one.setblocking(False)
            bound.append(one)
        except OSError as error:
            failure = failure or error
            if error.errno not in NO_SUCH_FAMILY:
                raise
    if not bound:
        raise failure or OSError(f"{host} has no address")
    return bound
