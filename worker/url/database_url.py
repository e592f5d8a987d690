"""`DatabaseURL`: which server, user, database and TLS, as a frozen value."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from worker.errors import InvalidURL
from worker.url import drivers, grammar
from worker.url.address import DEFAULT_PORT, Address
from worker.url.environment import home, operating_system_user, service, variables
from worker.url.parameters import (
    CONNECTION,
    FOREIGN,
    IGNORED,
    PARAMETERS,
    SECRET,
    VERIFYING,
    checked,
    unknown,
)
from worker.url.passfile import password_for
from worker.url.redact import MASK, redact

URL = "the database URL"

Said = dict[str, tuple[str, str]]
"""Parameter -> (value, where it was said)."""


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseURL:
    """A server (or several, tried in order), a user, a database and how to reach them.

    addresses: at least one; user, database: never empty.
    password: None when none was said; `password_for` then looks into the password file.
    sslmode: one of libpq's six.
    parameters: further libpq parameters as sorted (name, value) pairs.
    home: where .pgpass and .postgresql are looked for.
    notes: what was dropped from the text, or will not be honoured by both drivers; to log.

    `str()` and `repr()` show *** for passwords; `unmasked()` does not.
    """

    addresses: tuple[Address, ...]
    user: str
    database: str
    password: str | None = None
    sslmode: str = "prefer"
    parameters: tuple[tuple[str, str], ...] = ()
    home: Path = field(default_factory=lambda: home(os.environ), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str] | None = None) -> DatabaseURL:
        """Reads a URL; what it leaves out comes from PG* variables, as with psql.

        environ: os.environ unless given. Raises InvalidURL.
        """
        environ = os.environ if environ is None else environ
        said = {name: (value, URL) for name, value in grammar.split(text).items()}
        return cls._build(said, environ)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> DatabaseURL:
        """What PGHOST, PGUSER, PGSERVICE and the other PG* variables say. Raises InvalidURL."""
        return cls._build({}, os.environ if environ is None else environ)

    @classmethod
    def _build(cls, said: Said, environ: Mapping[str, str]) -> DatabaseURL:
        notes: list[str] = []
        known = _known(_translated(said), notes)
        inherited = variables(environ)
        if chosen := known.get("service") or inherited.get("service"):
            inherited |= _known(service(chosen[0], environ), notes)
        merged = inherited | known
        values = {name: checked(name, *value) for name, value in merged.items()}
        addresses = _addresses(values, merged)
        user = values.get("user") or operating_system_user()
        if not user:
            raise InvalidURL(
                "The database URL names no user",
                why="this process runs under an id that has no name",
                hint=f"name one, as in {grammar.EXAMPLE}",
            )
        url = cls(
            addresses=addresses,
            user=user,
            database=values.get("dbname") or user,
            password=values.get("password"),
            sslmode=values.get("sslmode") or _default_sslmode(values, addresses, environ),
            parameters=_further(values),
            home=home(environ),
        )
        _refuse_contradictions(url)
        return replace(url, notes=(*notes, *drivers.notes(url)))

    def get(self, name: str, default: str | None = None) -> str | None:
        """Value of a further parameter, such as application_name."""
        return dict(self.parameters).get(name, default)

    def with_parameters(self, **parameters: object) -> DatabaseURL:
        """The same with these parameters set, replacing what the URL said."""
        plain = {k: math.ceil(v) if isinstance(v, float) else v for k, v in parameters.items()}
        checked_ = {name: checked(name, str(value), "the program") for name, value in plain.items()}
        return replace(self, parameters=tuple(sorted((dict(self.parameters) | checked_).items())))

    def with_defaults(self, **parameters: object) -> DatabaseURL:
        """The same with these parameters set where the URL says nothing."""
        said = dict(self.parameters)
        return self.with_parameters(**{k: v for k, v in parameters.items() if k not in said})

    def password_for(self, address: Address) -> str | None:
        """The password of the URL, else the one that the password file has for this server."""
        if self.password:
            return self.password
        file = Path(self.get("passfile") or self.home / ".pgpass")
        return password_for(file, address, self.database, self.user)

    def asyncpg_kwargs(self) -> dict[str, Any]:
        """Arguments for `asyncpg.connect`. Raises InvalidURL if a TLS file is unusable.

        With several hosts use `worker.url.connect`: asyncpg has one timeout for all of them.
        """
        return drivers.asyncpg_kwargs(self)

    def psycopg_conninfo(self) -> str:
        """The string for `psycopg.connect`; holds the password. Raises InvalidURL likewise."""
        return drivers.psycopg_conninfo(self)

    def sqlalchemy_url(self, driver: str = "psycopg") -> str:
        """A `postgresql+driver://` URL for `create_engine`; holds the password.

        For "asyncpg" pass `connect_args=url.asyncpg_kwargs()` too: TLS has no place in the URL.
        """
        return drivers.sqlalchemy_url(self, driver)

    def unmasked(self) -> str:
        """The canonical URL with its password; `parse` reads it back to an equal value."""
        return self._text(self.password, self.parameters)

    def redact(self, message: str) -> str:
        """`message` without this URL's passwords, and without any other that shows."""
        return redact(message, (self.password, self.get("sslpassword")))

    def __str__(self) -> str:
        shown = ((name, MASK if name in SECRET else value) for name, value in self.parameters)
        return self._text(self.password and MASK, tuple(shown)).replace("%2A%2A%2A", MASK)

    def __repr__(self) -> str:
        return f"DatabaseURL({str(self)!r})"

    def _text(self, password: str | None, parameters: tuple[tuple[str, str], ...]) -> str:
        query = [("sslmode", self.sslmode), *parameters]
        return grammar.join(self.user, password, self.addresses, self.database, query)


def _translated(said: Said) -> Said:
    """`ssl=` of JDBC (true) and SQLAlchemy (a mode) said in libpq's words."""
    said = dict(said)
    if "ssl" in said:
        value, origin = said.pop("ssl")
        said.setdefault(
            "sslmode", ({"true": "require", "false": "disable"}.get(value, value), origin)
        )
    return said


def _known(said: Said, notes: list[str]) -> Said:
    """Only libpq's parameters; drops and notes those of other libraries. Raises InvalidURL."""
    known: Said = {}
    for name, (value, origin) in said.items():
        if name in PARAMETERS:
            known[name] = (value, origin)
        elif name in FOREIGN:
            notes.append(f"{name} in {origin} is for {FOREIGN[name]} and is not used")
        elif name in IGNORED:
            notes.append(f"{name} in {origin} is not used: {IGNORED[name]}")
        else:
            raise unknown(name, origin)
    return known


def _addresses(values: dict[str, str], said: Said) -> tuple[Address, ...]:
    hosts = (values.get("host") or "").split(",")
    if "hostaddr" in values:
        if any(hosts):
            raise InvalidURL(
                f"hostaddr ({said['hostaddr'][1]}) and host cannot both be given",
                why="asyncpg cannot check one name while it connects to another address",
                hint="leave hostaddr out, and let the name resolve to that address",
            )
        hosts = values["hostaddr"].split(",")
    if len(hosts) > 1 and not all(hosts):
        raise InvalidURL(
            "A host in the list of hosts is empty",
            why="there is a comma too many",
            hint="write host1:5432,host2:5432",
        )
    for host in hosts:
        if host.startswith("@") or any(char.isspace() for char in host):
            raise InvalidURL(
                "A host name in the database URL is not valid",
                why="it holds a space, or names an abstract socket, which asyncpg cannot reach",
                hint="give a host name, an address, or the directory of the socket",
            )
    ports = _ports(values.get("port", ""), len(hosts), said)
    return tuple(Address(host, port) for host, port in zip(hosts, ports, strict=True))


def _ports(text: str, count: int, said: Said) -> list[int]:
    origin = said["port"][1] if "port" in said else URL
    items = text.split(",")
    if len(items) not in (1, count):
        raise InvalidURL(
            f"There are {len(items)} ports for {count} hosts ({origin})",
            why="one port serves all hosts, or each host has one",
            hint="write host1:5432,host2:5432",
        )
    return [_port(item, origin) for item in items] * (count if len(items) == 1 else 1)


def _port(item: str, origin: str) -> int:
    if not item:
        return DEFAULT_PORT
    number = int(item) if item.isascii() and item.isdigit() and len(item) < 10 else 0
    if 0 < number < 65536:
        return number
    shown = f" {item}" if number else ""
    raise InvalidURL(
        f"The port{shown} is not valid ({origin})",
        why="a port is a number from 1 to 65535",
        hint=f"check what follows the host; {grammar.ESCAPE}",
    )


def _default_sslmode(
    values: dict[str, str], addresses: tuple[Address, ...], environ: Mapping[str, str]
) -> str:
    """libpq's default, but `require` on Heroku, whose servers have self-signed certificates."""
    if values.get("sslrootcert") == "system":
        return "verify-full"
    on_heroku = "DYNO" in environ and not all(address.is_socket for address in addresses)
    return "require" if on_heroku else "prefer"


def _further(values: dict[str, str]) -> tuple[tuple[str, str], ...]:
    further = {k: v for k, v in values.items() if k not in CONNECTION}
    fallback = further.pop("fallback_application_name", None)
    if fallback:
        further.setdefault("application_name", fallback)
    return tuple(sorted(further.items()))


def _refuse_contradictions(url: DatabaseURL) -> None:
    """The combinations that libpq refuses as well."""
    if url.get("sslrootcert") == "system" and url.sslmode != "verify-full":
        raise InvalidURL(
            f"sslmode={url.sslmode} is too weak for sslrootcert=system",
            why="anybody can get a certificate that the system trusts, for a name of their own",
            hint="use sslmode=verify-full",
        )
    if url.get("sslnegotiation") == "direct" and url.sslmode not in ("require", *VERIFYING):
        raise InvalidURL(
            f"sslmode={url.sslmode} is too weak for sslnegotiation=direct",
            why="a direct TLS connection cannot fall back to plain text",
            hint="use sslmode=require or stronger",
        )
