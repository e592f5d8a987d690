"""Lists as Postgres spells an array.

psycopg writes a list of texts at 20 us an element; the text of the whole array costs 1 us.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any


def array(values: list[Any]) -> str | list[Any]:
    """`values` as an array literal, e.g. {1,null,3}; or as they are, where a driver must do it.

    Takes None, and one of str, numbers, bool, datetime. The statement casts it: $1::bigint[].
    """
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return "{" + ",".join(["null"] * len(values)) + "}"
    if kinds == {int, float}:
        kinds = {float}
    spell = _SPELLINGS.get(kinds.pop())
    if spell is None or kinds:
        return values
    holes = None in values
    if spell is _quoted:
        if "\0" in "".join([v for v in values if v is not None] if holes else values):
            return values  # Postgres takes no NUL; the driver says so
        if not holes:  # all at once: NUL stands in none of them, so it can part them
            text = _escaped("\0".join(values)).replace("\0", '","')
            return f'{{"{text}"}}'
    if holes:
        return "{" + ",".join(["null" if v is None else spell(v) for v in values]) + "}"
    return "{" + ",".join(map(spell, values)) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


_SPELLINGS: dict[type, Callable[[Any], str]] = {
    int: repr,
    float: repr,
    bool: repr,
    str: _quoted,
    dt.datetime: dt.datetime.isoformat,
}
