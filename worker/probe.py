"""The first connection: is the database there, is its schema right, is a pooler in between?"""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from worker.errors import DatabaseUnreachable
from worker.schema import INSTALLATION, MISSING_SQLSTATES, Installation, ensure_compatible
from worker.url import DatabaseURL, connect


@dataclass(frozen=True, slots=True)
class Server:
    """pooled: the process that answers is not the one that was connected to: a transaction pooler,
    which hands each transaction to another session."""

    version: str
    installation: Installation
    pooled: bool


async def probe(url: DatabaseURL, timeout: float) -> Server:
    """Raises DatabaseUnreachable or SchemaError, with what to do."""
    try:
        connection = await connect(url, timeout=timeout, statement_cache_size=0)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnreachable(
            f"no connection to {url}",
            why=f"{type(error).__name__}: {url.redact(str(error)) or 'no answer'}",
            hint='check DATABASE_URL, and that the server runs: pg_isready -d "$DATABASE_URL"',
        ) from None
    try:
        backend, version = await connection.fetchrow(
            "select pg_backend_pid(), current_setting('server_version')"
        )
        pooled = backend != connection.get_server_pid()
        return Server(version, ensure_compatible(await _installation(connection)), pooled)
    finally:
        await connection.close(timeout=2)


async def _installation(connection: asyncpg.Connection) -> Installation | None:
    try:
        row = await connection.fetchrow(INSTALLATION)
    except asyncpg.PostgresError as error:
        if error.sqlstate in MISSING_SQLSTATES:
            return None
        raise
    return None if row is None else Installation(*row)
