"""The password file, `~/.pgpass`, read by libpq's rules for both drivers.

https://www.postgresql.org/docs/current/libpq-pgpass.html. asyncpg's own reading takes
escapes and hosts differently, so it never gets to read the file.
"""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from worker.url.address import Address

log = logging.getLogger(__name__)


def password_for(path: Path, address: Address, database: str, user: str) -> str | None:
    """The password on the first line that fits; None without a line or a usable file.

    A Unix socket is looked up as its directory and as `localhost`.
    """
    names = {address.host, "localhost"} if address.is_socket else {address.host}
    wanted = (names, {str(address.port)}, {database}, {user})
    for line in _lines(path):
        fields = _fields(line)
        if len(fields) >= 5 and all(
            field == "*" or _unescaped(field) in values
            for field, values in zip(fields, wanted, strict=False)
        ):
            return _unescaped(fields[4]) or None
    return None


def _lines(path: Path) -> list[str]:
    """Lines that are no comments; nothing, and a warning, if others may read the file."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return []
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("password file %s ignored: others can read it; chmod 600 it", path)
            return []
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return []
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def _fields(line: str) -> list[str]:
    """The fields between unescaped colons, escapes kept."""
    fields, current, escaped = [], "", False
    for char in line.rstrip("\r"):
        if char == ":" and not escaped:
            fields.append(current)
            current = ""
        else:
            current += char
        escaped = char == "\\" and not escaped
    return [*fields, current]


def _unescaped(field: str) -> str:
    plain, escaped = "", False
    for char in field:
        escaped = char == "\\" and not escaped
        if not escaped:
            plain += char
    return plain
