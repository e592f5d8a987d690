"""One asyncpg connection to the first server that will do, as psycopg would choose it.

asyncpg alone gives all hosts one timeout together, so a first host that swallows packets
hides the second; it looks up one password for all of them, does not balance, and sets no
keepalives. Use this function, or pass it to `asyncpg.create_pool(connect=...)`.
"""

from __future__ import annotations

import random
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg

from worker.url.address import Address
from worker.url.drivers import asyncpg_kwargs

if TYPE_CHECKING:
    from worker.url.database_url import DatabaseURL

_SOCKET_OPTIONS = {
    "keepalives_idle": getattr(socket, "TCP_KEEPIDLE", None),
    "keepalives_interval": getattr(socket, "TCP_KEEPINTVL", None),
    "keepalives_count": getattr(socket, "TCP_KEEPCNT", None),
    "tcp_user_timeout": getattr(socket, "TCP_USER_TIMEOUT", None),
}

_NEXT_SERVER = (OSError, asyncpg.PostgresError, asyncpg.TargetServerAttributeNotMatched)


async def connect(url: DatabaseURL, **kwargs: Any) -> asyncpg.Connection:
    """Tries each server in turn, `connect_timeout` seconds each; goes on after any failure.

    kwargs go to `asyncpg.connect`; server_settings are merged with the URL's.
    Raises what the last server answered (OSError, asyncpg.PostgresError, ...), the others'
    answers as its notes.
    """
    failures: list[tuple[Address, Exception]] = []
    for attributes, address in _attempts(url):
        try:
            return await _connect_one(url, address, attributes, kwargs)
        except _NEXT_SERVER as error:
            failures.append((address, error))
    raise _told(url, failures)


def _attempts(url: DatabaseURL) -> list[tuple[str, Address]]:
    addresses = list(url.addresses)
    if url.get("load_balance_hosts") == "random":
        random.shuffle(addresses)
    attributes = url.get("target_session_attrs") or "any"
    rounds = ["standby", "any"] if attributes == "prefer-standby" else [attributes]
    return [(attributes, address) for attributes in rounds for address in addresses]


def _told(url: DatabaseURL, failures: list[tuple[Address, Exception]]) -> Exception:
    *earlier, (_, last) = failures
    for address, failure in earlier:
        last.add_note(f"{address}: {url.redact(str(failure)) or type(failure).__name__}")
    return last


async def _connect_one(
    url: DatabaseURL, address: Address, attributes: str, kwargs: dict[str, Any]
) -> asyncpg.Connection:
    said = asyncpg_kwargs(replace(url, addresses=(address,)))
    said["target_session_attrs"] = attributes
    settings = said.pop("server_settings") | kwargs.get("server_settings", {})
    connection = await asyncpg.connect(**{**said, **kwargs, "server_settings": settings})
    if not address.located().is_socket:
        _keep_alive(connection, url)
    return connection


def _keep_alive(connection: asyncpg.Connection, url: DatabaseURL) -> None:
    """Socket options as libpq sets them: keepalives are on unless keepalives=0."""
    # asyncpg offers no public way to its socket.
    sock = connection._transport.get_extra_info("socket")
    on = url.get("keepalives", "1") == "1"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(on))
    for name, option in _SOCKET_OPTIONS.items():
        value = int(url.get(name) or 0)
        if value > 0 and option is not None and (on or name == "tcp_user_timeout"):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
