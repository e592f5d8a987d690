"""A `DatabaseURL` in the words of asyncpg, psycopg and SQLAlchemy.

Everything is said explicitly, defaults too, so that no driver fills a gap from the
environment, from files or from what it was compiled with.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from worker.url.parameters import FALLING_BACK
from worker.url.tls import asyncpg_tls, psycopg_tls

if TYPE_CHECKING:
    from worker.url.database_url import DatabaseURL

DEFAULT_CONNECT_TIMEOUT = 5
LONGEST_CONNECT_TIMEOUT = 130
"""Seconds, where libpq would wait for ever; psycopg's own figure."""

_PSYCOPG_AS_SAID = (
    "application_name",
    "options",
    "load_balance_hosts",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslpassword",
    "sslcrldir",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "channel_binding",
    "krbsrvname",
    "gsslib",
)


def connect_timeout(url: DatabaseURL) -> int:
    """Seconds for one attempt at one server: at least 2 and never endless, as psycopg has it."""
    seconds = int(url.get("connect_timeout") or DEFAULT_CONNECT_TIMEOUT)
    return LONGEST_CONNECT_TIMEOUT if seconds <= 0 else max(2, seconds)


def asyncpg_kwargs(url: DatabaseURL) -> dict[str, Any]:
    """Arguments for `asyncpg.connect` and `asyncpg.create_pool`."""
    addresses = [address.located() for address in url.addresses]
    settings = {name: url.get(name) for name in ("application_name", "options")}
    kerberos = {name: url.get(name) for name in ("krbsrvname", "gsslib")}
    remote = any(not address.is_socket for address in addresses)
    return {
        "host": [address.host for address in addresses],
        "port": [address.port for address in addresses],
        "user": url.user,
        "database": url.database,
        # A function, so that asyncpg asks neither PGPASSWORD nor the password file itself.
        "password": url.password or (lambda: url.password_for(addresses[0])),
        "timeout": float(connect_timeout(url) * len(addresses)),
        "target_session_attrs": url.get("target_session_attrs", "any"),
        "server_settings": {name: value for name, value in settings.items() if value},
        **{name: value for name, value in kerberos.items() if value},
        **(asyncpg_tls(url) if remote else {"ssl": False, "direct_tls": False}),
    }


def psycopg_conninfo(url: DatabaseURL) -> str:
    """A libpq key='value' string."""
    return " ".join(f"{name}={_escaped(value)}" for name, value in _psycopg_pairs(url).items())


def sqlalchemy_url(url: DatabaseURL, driver: str) -> str:
    """`postgresql+driver://...`: complete for psycopg, without TLS for other drivers."""
    pairs = _psycopg_pairs(url)
    user, database = pairs.pop("user"), pairs.pop("dbname")
    password = pairs.pop("password", None)
    if driver != "psycopg":
        pairs = {name: pairs[name] for name in ("host", "port")}
    secret = f":{quote(password, safe='')}" if password else ""
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs.items())
    return (
        f"postgresql+{driver}://{quote(user, safe='')}{secret}@/{quote(database, safe='')}?{query}"
    )


def notes(url: DatabaseURL) -> Iterable[str]:
    """What one of the drivers will not honour, in sentences for the log."""
    if url.get("channel_binding") == "require":
        yield "channel_binding=require: psycopg honours it, asyncpg has no channel binding"
    if url.get("gssencmode") == "prefer":
        yield "gssencmode=prefer is not used: asyncpg cannot encrypt with GSSAPI"
    if url.sslmode in FALLING_BACK and url.get("sslrootcert"):
        yield (
            f"sslrootcert is not used with sslmode={url.sslmode}, which checks no certificate: "
            "say sslmode=verify-full to have it checked"
        )


def _psycopg_pairs(url: DatabaseURL) -> dict[str, str]:
    addresses = [address.located() for address in url.addresses]
    said = {name: url.get(name) for name in _PSYCOPG_AS_SAID}
    remote = any(not address.is_socket for address in addresses)
    return {
        "host": ",".join(address.host for address in addresses),
        "port": ",".join(str(address.port) for address in addresses),
        "user": url.user,
        "dbname": url.database,
        **_psycopg_password(url),
        "connect_timeout": str(connect_timeout(url)),
        "target_session_attrs": url.get("target_session_attrs") or "any",
        "client_encoding": "utf8",
        "gssencmode": "disable",
        **(psycopg_tls(url) if remote else {"sslmode": "disable"}),
        **{name: value for name, value in said.items() if value},
    }


def _psycopg_password(url: DatabaseURL) -> dict[str, str]:
    """One password for all servers is said; libpq looks up different ones by itself."""
    found = {url.password_for(address.located()) for address in url.addresses}
    only = found.pop() if len(found) == 1 else None
    if only:
        return {"password": only}
    return {"passfile": url.get("passfile") or str(url.home / ".pgpass")}


def _escaped(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
