"""Names of tables as people write them, and as Postgres keeps them.

Read as SQL reads them: `Donations` is donations, `"Donations"` is Donations. What Postgres would
cut in silence is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from psycopg import sql

from worker.errors import UsageError
from worker.tables.spec import NAME_BYTES

# A part in quotes, in which a quote stands twice, or one that needs none.
_PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^\W\d][\w$]*))\s*')
_COLUMN = r'\s*(?:"((?:[^"]|"")+)"|([^\s",][^",]*))\s*'
_ASCII_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def parts_of(text: str) -> tuple[str, ...]:
    """The exact parts of a table's name: (table,) or (schema, table).

    Raises UsageError for what is no name, has more parts, or a part over 63 bytes.
    """
    found = _split(text)
    if found is None:
        raise UsageError(
            f"{text!r} is not the name of a table",
            why="a name that holds anything but letters, digits and _ stands in double quotes",
            hint="""write donations, shop.orders or '"Mixed Case"'""",
        )
    if len(found) > 2:
        raise UsageError(
            f"{text!r} has {len(found)} parts",
            why="a table is named by itself or with its schema; a database is chosen by the URL",
            hint=f"write {quoted(found[-2:])}",
        )
    for part in found:
        refuse_long(part)
    return found


def refuse_long(name: str, what: str = "name") -> None:
    """Raises UsageError for a name over 63 bytes, of which Postgres would keep the first 63."""
    length = len(name.encode(errors="surrogatepass"))
    if length > NAME_BYTES:
        kept = name.encode(errors="replace")[:NAME_BYTES].decode(errors="ignore")
        raise UsageError(
            f"the {what} {name!r} is {length} bytes long",
            why=f"Postgres keeps {NAME_BYTES}: it would look for {kept!r}, which may be another",
            hint="write the name as it stands in the catalog (\\d in psql)",
        )


def quoted(parts: Sequence[str]) -> str:
    """The parts as SQL, each in double quotes."""
    return sql.Identifier(*parts).as_string(None)


def columns_of(text: str) -> tuple[str, ...]:
    """Column names from `id`, `org_id,id` or `"a,b",c`. They are exact: no case is folded.

    Raises UsageError for what is no list of names, or a name over 63 bytes.
    """
    found = re.findall(_COLUMN, text) if re.fullmatch(rf"{_COLUMN}(,{_COLUMN})*", text) else []
    names = tuple(inside.replace('""', '"') or bare.rstrip() for inside, bare in found)
    if not names or len(names) != len(set(names)):
        raise UsageError(
            f"{text!r} is not a list of columns",
            hint="write id, or org_id,id for several; a name with a comma in double quotes",
        )
    for name in names:
        refuse_long(name, "column name")
    return names


def _split(text: str) -> tuple[str, ...] | None:
    if "\0" in text:
        return None
    found: list[str] = []
    at = 0
    while (match := _PART.match(text, at)) is not None:
        inside, bare = match.groups()
        found.append(inside.replace('""', '"') if inside else bare.translate(_ASCII_LOWER))
        at = match.end()
        if at == len(text):
            return tuple(found)
        if text[at] != ".":
            return None
        at += 1
    return None
