"""Which parameters a database URL may carry: libpq's own, and those of other libraries.

Names, variables and values: https://www.postgresql.org/docs/current/libpq-connect.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from worker.errors import InvalidURL

SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
VERIFYING = ("verify-ca", "verify-full")
FALLING_BACK = ("allow", "prefer")
SESSION_ATTRS = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

Check = Callable[[str], str]
"""Takes a value, answers what is wrong with it, or nothing."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One libpq parameter: its name, its environment variable, and what values make sense."""

    name: str
    variable: str | None = None
    check: Check = lambda value: ""


def _one_of(*values: str) -> Check:
    return lambda value: "" if value in values else f"it must be one of {', '.join(values)}"


def _integer(value: str) -> str:
    return "" if re.fullmatch(r"[+-]?[0-9]{1,9}", value) else "it must be a whole number"


def _sslmode(value: str) -> str:
    if value in SSLMODES:
        return ""
    near = {"no-verify": "require", "true": "require", "false": "disable", "required": "require"}
    import difflib

    guess = near.get(value) or next(iter(difflib.get_close_matches(value, SSLMODES, 1)), None)
    return f"it must be one of {', '.join(SSLMODES)}" + (f" (perhaps {guess})" if guess else "")


def _gssencmode(value: str) -> str:
    if value == "require":
        return "asyncpg cannot encrypt with GSSAPI; use TLS (sslmode=verify-full) instead"
    return _one_of("disable", "prefer")(value)


def _sslsni(value: str) -> str:
    return "asyncpg always sends the server name" if value == "0" else _one_of("1")(value)


def _unsupported(why: str) -> Check:
    return lambda value: why


PARAMETERS: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter("host", "PGHOST"),
        Parameter("hostaddr", "PGHOSTADDR"),
        Parameter("port", "PGPORT"),
        Parameter("dbname", "PGDATABASE"),
        Parameter("user", "PGUSER"),
        Parameter("password", "PGPASSWORD"),
        Parameter("passfile", "PGPASSFILE"),
        Parameter("service", "PGSERVICE"),
        Parameter("application_name", "PGAPPNAME"),
        Parameter("fallback_application_name"),
        Parameter("options", "PGOPTIONS"),
        Parameter("connect_timeout", "PGCONNECT_TIMEOUT", _integer),
        Parameter("target_session_attrs", "PGTARGETSESSIONATTRS", _one_of(*SESSION_ATTRS)),
        Parameter("load_balance_hosts", "PGLOADBALANCEHOSTS", _one_of("disable", "random")),
        Parameter("keepalives", None, _one_of("0", "1")),
        Parameter("keepalives_idle", None, _integer),
        Parameter("keepalives_interval", None, _integer),
        Parameter("keepalives_count", None, _integer),
        Parameter("tcp_user_timeout", None, _integer),
        Parameter("sslmode", "PGSSLMODE", _sslmode),
        Parameter("sslrootcert", "PGSSLROOTCERT"),
        Parameter("sslcert", "PGSSLCERT"),
        Parameter("sslkey", "PGSSLKEY"),
        Parameter("sslpassword"),
        Parameter("sslcrl", "PGSSLCRL"),
        Parameter("sslcrldir", "PGSSLCRLDIR"),
        Parameter("sslnegotiation", "PGSSLNEGOTIATION", _one_of("postgres", "direct")),
        Parameter("sslsni", "PGSSLSNI", _sslsni),
        Parameter("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", _one_of(*TLS_VERSIONS)),
        Parameter("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", _one_of(*TLS_VERSIONS)),
        Parameter("channel_binding", "PGCHANNELBINDING", _one_of("disable", "prefer", "require")),
        Parameter("gssencmode", "PGGSSENCMODE", _gssencmode),
        Parameter("krbsrvname", "PGKRBSRVNAME"),
        Parameter("gsslib", "PGGSSLIB", _one_of("gssapi", "sspi")),
        Parameter(
            "require_auth", "PGREQUIREAUTH", _unsupported("asyncpg cannot demand a login method")
        ),
        Parameter(
            "requirepeer", "PGREQUIREPEER", _unsupported("asyncpg cannot check the socket's owner")
        ),
    )
}

SECRET = frozenset({"password", "sslpassword"})
CONNECTION = frozenset(
    {"host", "hostaddr", "port", "dbname", "user", "password", "service", "sslmode"}
)
"""Said by fields of `DatabaseURL`, not by its `parameters`."""

FOREIGN: dict[str, str] = {
    **dict.fromkeys(
        (
            "pgbouncer",
            "schema",
            "connection_limit",
            "pool_timeout",
            "socket_timeout",
            "statement_cache_size",
            "sslaccept",
            "sslidentity",
        ),
        "Prisma",
    ),
    **dict.fromkeys(("supa", "workaround"), "Supabase and Vercel"),
    **dict.fromkeys(
        ("pool", "checkout_timeout", "reaping_frequency", "idle_timeout", "prepared_statements"),
        "Rails",
    ),
    **dict.fromkeys(("conn_max_age", "conn_health_checks"), "Django"),
    **dict.fromkeys(
        ("async_fallback", "prepared_statement_cache_size", "pool_size", "max_overflow"),
        "SQLAlchemy",
    ),
    **dict.fromkeys(("uselibpqcompat", "max", "idle_timeout_millis"), "node-postgres"),
}
"""Parameters of other libraries that share the URL: dropped, with a note. Name -> library."""

IGNORED: dict[str, str] = {
    "client_encoding": "text is always sent as UTF-8",
    "sslcompression": "servers have not offered it for years",
    "sslcertmode": "a client certificate is sent when there is one",
}
"""libpq parameters that change nothing here: dropped, with a note. Name -> why."""


def checked(name: str, value: str, origin: str) -> str:
    """The value, if `name` may have it. Raises InvalidURL, which never quotes a secret."""
    trouble = PARAMETERS[name].check(value)
    if not trouble and name != "password" and (bad := re.search(r"[\x00-\x1f\x7f]", value)):
        trouble = f"it holds a control character (code {ord(bad[0])})"
    if not trouble and "\x00" in value:
        trouble = "it holds a NUL character"
    if not trouble:
        return value
    shown = f" {value!r}" if name not in SECRET and re.fullmatch(r"[\w.+-]{1,30}", value) else ""
    raise InvalidURL(
        f"The value{shown} of {name} is not valid ({origin})",
        why=trouble,
        hint=f"correct {name} in {origin}, or leave it out",
    )


def unknown(name: str, origin: str) -> InvalidURL:
    """What to raise for a parameter that nobody knows."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", name)
    import difflib

    near = difflib.get_close_matches(name, PARAMETERS, 1) if plain else []
    accepted = ", ".join(sorted(PARAMETERS.keys() - {"require_auth", "requirepeer"}))
    return InvalidURL(
        f"Unknown parameter {name!r} in {origin}" if plain else f"Unreadable parameter in {origin}",
        why=f"accepted are {accepted}",
        hint=f"did you mean {near[0]}?"
        if near
        else "remove it; a ? & or = that belongs to the password is written %3F %26 %3D",
    )
