"""The text of a connection URL, taken apart into libpq parameters and put together again.

The grammar is libpq's (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS),
with two kindnesses: `postgresql+driver://` as SQLAlchemy writes it, and an unescaped @ in
the password. Nothing here quotes a part of the URL that could be a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote, unquote_to_bytes

from worker.errors import InvalidURL
from worker.url.address import Address

EXAMPLE = "postgresql://user:password@host:5432/database?sslmode=require"
WRITE = f"write it as {EXAMPLE}"
ESCAPE = "in the user and password write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, % as %25"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]*)(\+[A-Za-z0-9_]+)?://")
_HOST = re.compile(r"(?:\[(?P<ipv6>[^\]]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>.*))?", re.S)


def split(text: str) -> dict[str, str]:
    """libpq parameters that `text` says, decoded; several hosts or ports joined by commas.

    Only parameters of the text are in the answer; their names are not checked.
    Raises InvalidURL.
    """
    rest = _without_scheme(text.strip())
    userinfo, rest = _split_userinfo(rest)
    authority, mark, rest = _partition(rest, "/?")
    path, _, query = rest.partition("?") if mark == "/" else ("", "", rest)
    user, _, password = userinfo.partition(":")
    said = {
        "user": _decoded(user, "user"),
        "password": _decoded(password, "password"),
        **_hosts(authority, suspicious="@" in path),
        "dbname": _decoded(path, "database"),
        **dict(_query(query)),
    }
    return {name: value for name, value in said.items() if value}


def _without_scheme(text: str) -> str:
    match = _SCHEME.match(text)
    if match and match[1].lower() in ("postgres", "postgresql"):
        return text[match.end() :]
    if not text:
        why, hint = "it is empty", WRITE
    elif text[0] in "'\"":
        why, hint = "it starts with a quote, which is not part of a URL", "remove the quotes"
    elif text.startswith("psql "):
        why, hint = "it is a psql command", "keep only the postgresql:// part"
    elif match:
        why, hint = f"the scheme is {match[1]}, and only Postgres will do", WRITE
    elif re.match(r"\w+\s*=", text):
        why, hint = "it looks like a libpq string of key=value pairs", WRITE
    else:
        why, hint = "it does not start with postgres:// or postgresql://", WRITE
    raise InvalidURL("The database URL is not a Postgres URL", why=why, hint=hint)


def _split_userinfo(text: str) -> tuple[str, str]:
    """As libpq: what stands before the first @, if that comes before any slash.

    Another @ before the host ends is taken as part of the password.
    """
    before, at, after = text.partition("@")
    if not at or "/" in before:
        return "", text
    host, mark, rest = _partition(after, "/?")
    more, at, host = host.rpartition("@")
    return before + (f"@{more}" if at else ""), host + mark + rest


def _partition(text: str, separators: str) -> tuple[str, str, str]:
    for index, char in enumerate(text):
        if char in separators:
            return text[:index], char, text[index + 1 :]
    return text, "", ""


def _decoded(text: str, part: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise InvalidURL(
            f"The {part} in the database URL is not readable",
            why="a % must be followed by two hexadecimal digits",
            hint="write a plain % as %25",
        )
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeError:
        raise InvalidURL(
            f"The {part} in the database URL is not readable",
            why="its percent-encoded bytes are not UTF-8",
            hint="percent-encode the UTF-8 form of each character",
        ) from None
    forbidden = r"\x00" if part == "password" else r"[\x00-\x1f\x7f]"
    if bad := re.search(forbidden, decoded):
        raise InvalidURL(
            f"The {part} in the database URL is not valid",
            why=f"it holds a control character (code {ord(bad[0])})",
            hint="remove line breaks, tabs and the like from the URL",
        )
    return decoded


def _hosts(authority: str, *, suspicious: bool) -> dict[str, str]:
    """`host` and `port` of `h1:p1,[::1]:p2`; suspicious: it may be a piece of a password."""
    hosts, ports = [], []
    for item in authority.split(","):
        match = _HOST.fullmatch(item)
        if match is None or (suspicious and match["port"]):
            raise InvalidURL(
                "The host in the database URL is not readable",
                why="an IPv6 address stands in brackets, and a / ends the host",
                hint=ESCAPE if suspicious else "write it as host, host:5432 or [::1]:5432",
            )
        hosts.append(_decoded(match["ipv6"] or match["name"] or "", "host"))
        ports.append(_decoded(match["port"] or "", "port"))
    return {
        "host": ",".join(hosts) if any(hosts) else "",
        "port": ",".join(ports) if any(ports) else "",
    }


def _query(query: str) -> Iterator[tuple[str, str]]:
    """Pairs of the query; a + is a plus, as libpq has it. The last of a name wins."""
    for item in filter(None, query.split("&")):
        name, equals, value = item.partition("=")
        if not equals or "@" in name:
            raise InvalidURL(
                "A parameter of the database URL is not readable",
                why="parameters after the ? are written name=value and joined by &",
                hint=ESCAPE,
            )
        name = _decoded(name, "name of a parameter")
        part = "password" if name == "password" else "value of a parameter"
        yield name, _decoded(value, part)


def join(
    user: str,
    password: str | None,
    addresses: Sequence[Address],
    database: str,
    query: Iterable[tuple[str, str]],
) -> str:
    """A canonical `postgresql://` URL with every part percent-encoded; libpq reads it too."""
    secret = f":{_quoted(password)}" if password else ""
    hosts = ",".join(f"{_quoted_host(address.host)}:{address.port}" for address in addresses)
    pairs = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in query)
    return f"postgresql://{_quoted(user)}{secret}@{hosts}/{_quoted(database)}?{pairs}"


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _quoted_host(host: str) -> str:
    return f"[{quote(host, safe=':')}]" if ":" in host and host[0] != "/" else _quoted(host)
