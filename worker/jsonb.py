"""Arguments as JSON text, and whether a jsonb column and a worker will take them.

Checked before anything is sent: an error of the database would end the caller's transaction.
A few searches over all texts at once show that nearly all are harmless; only what might be wrong is
parsed, and then told exactly: by the path of the argument, never by its value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from worker.outcome import storable

PAYLOAD_LIMIT = 262_144  # bytes
DEPTH_LIMIT = 100  # objects and arrays inside each other
DIGITS_LIMIT = 4_300  # of an integer: more, and Python refuses to read it


class Fault(NamedTuple):
    """Why something cannot be enqueued, and what to do."""

    why: str
    hint: str = ""


class Unwritable(Exception):
    """`fault` says which argument is not JSON."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.why)
        self.fault = fault


_TOO_DEEP = Fault(
    f"it is nested deeper than {DEPTH_LIMIT} levels, or holds itself",
    "store the data in a table and pass its key",
)
_NUL = Fault("holds a NUL character, which Postgres refuses", "take it out")
_SURROGATE = Fault(
    "holds half a surrogate pair, which is no character",
    "decode the text that it came from with errors='replace'",
)


def write(value: Any) -> bytes:
    """`value` as JSON on one line: dates, decimals, UUIDs and models as pydantic writes them.

    NaN and infinities are written as such, for `suspects` to find. Raises Unwritable.
    """
    try:
        return to_json(value, fallback=_as_dict)
    except (ValueError, TypeError, RecursionError) as error:
        raise Unwritable(_unwritten(value, str(error))) from None


def text_fault(text: str) -> Fault | None:
    """What keeps Postgres from storing `text`, if anything."""
    if "\0" in text:
        return _NUL
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE
    return None


# -- the sieve --------------------------------------------------------------------------------

# A NUL or a surrogate, escaped; NaN and Infinity. They may be harmless: \\u0000, "NaN".
_TOKENS = (b"\\u0000", b"\\ud", b"\\uD", b"NaN", b"Infinity")
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (DIGITS_LIMIT + 1))
_TOO_SHORT_TO_BE_DEEP = 2 * DEPTH_LIMIT


def suspects(texts: Sequence[bytes], limit: int) -> list[int]:
    """The indexes of the texts that `fault_of` should look at; all others are fine."""
    if not texts:
        return []
    whole = b"\n" + b"\n".join(texts)
    tokens = [token for token in _TOKENS if token in whole]
    short = max(map(len, texts)) <= min(limit, _TOO_SHORT_TO_BE_DEEP)
    if short and not tokens and whole.count(b"\n{") == len(texts):
        return []
    return [i for i, text in enumerate(texts) if _suspicious(text, tokens, limit)]


def _suspicious(text: bytes, tokens: list[bytes], limit: int) -> bool:
    size = len(text)
    if size > _TOO_SHORT_TO_BE_DEEP and (
        size > limit
        or text.count(b"{") + text.count(b"[") > DEPTH_LIMIT
        or (size > DIGITS_LIMIT and _LONG_NUMBER.search(text))
    ):
        return True
    return text[:1] != b"{" or size > limit or any(token in text for token in tokens)


# -- the judge --------------------------------------------------------------------------------


class _Digits(str):
    """An integer, not read."""


def fault_of(text: bytes, limit: int) -> Fault | None:
    """What is wrong with `text`, if anything."""
    if len(text) > limit:
        return Fault(
            f"{len(text):,} bytes are over the limit of {limit:,}",
            "store the data in a table or an object store and pass its key",
        )
    try:
        value = json.loads(text, parse_int=_Digits, parse_constant=float)
    except RecursionError:
        return _TOO_DEEP
    except ValueError as error:
        return Fault(f"it is not JSON: {error}")
    if not isinstance(value, dict):
        return Fault(f"it is {_name(value)}, not an object", "pass the arguments by name: a dict")
    return next(_faults_in(value), None)


def _faults_in(document: dict[str, Any]) -> Iterator[Fault]:
    level: list[tuple[str, Any]] = [("", document)]
    for depth in range(DEPTH_LIMIT + 1):
        for path, value in level:
            if depth == DEPTH_LIMIT and isinstance(value, dict | list):
                yield _TOO_DEEP
            if (fault := _leaf_fault(value)) is not None:
                yield Fault(f"{path or 'it'} {fault.why}", fault.hint)
        level = [child for path, value in level for child in _children(path, value)]


def _leaf_fault(value: Any) -> Fault | None:
    match value:
        case _Digits():
            if len(value) > DIGITS_LIMIT:
                return Fault(f"is a number of {len(value):,} digits", "pass it as text")
        case str():
            return text_fault(value)
        case float() if value - value != 0:
            return Fault("is NaN or infinite, which JSON cannot say", "pass None, or text")
        case dict():
            return _name_fault(value)
    return None


def _name_fault(value: Mapping[Any, Any]) -> Fault | None:
    faults = (text_fault(name) for name in value if isinstance(name, str))
    return next((Fault(f"has a name that {f.why}", f.hint) for f in faults if f), None)


def _unwritten(value: Any, reason: str) -> Fault:
    """Goes down to the innermost part that cannot be written, and says where that is."""
    path = ""
    for _ in range(DEPTH_LIMIT):
        children = _children(path, value)
        found = next((child for child in children if not _writable(child[1])), None)
        if found is None:
            break
        path, value = found
    else:
        return _TOO_DEEP
    fault = _SURROGATE if isinstance(value, str) else None
    if fault is None and isinstance(value, Mapping):
        fault = _name_fault(value)
    if fault is not None:
        return Fault(f"{path or 'it'} {fault.why}", fault.hint)
    for prefix in ("Error serializing to JSON: ", "TypeError: "):
        reason = reason.removeprefix(prefix)
    return Fault(
        f"{path or 'it'} is {_name(value)}: {storable(reason)}",
        "pass text, numbers, lists, dicts, dates, UUIDs, decimals or models",
    )


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            name = storable(str(key), 80)
            yield f"{path}.{name}" if path else name, child
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield f"{path}[{index}]", child


def _writable(value: Any) -> bool:
    try:
        to_json(value, fallback=_as_dict)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def _as_dict(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError("JSON has no such thing")


def _name(value: Any) -> str:
    names = {list: "an array", str: "text", _Digits: "a number", type(None): "null"}
    return names.get(type(value), f"of type {type(value).__name__}")
