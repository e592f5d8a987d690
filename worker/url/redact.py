"""Masking of passwords in any text: drivers put them into their error messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

MASK = "***"

_SECRET_NAME = r"(?:ssl|pg)?(?:password|passwd|pwd)"  # noqa: S105 - a pattern, not a password
_RULES = (
    # Up to the last @ of the word: a password may hold an unescaped / or @ itself. Masks too
    # much rather than too little.
    (re.compile(r"(\bpostgres(?:ql)?(?:\+\w+)?://[^\s:/@]*:)\S*(?=@)", re.I), rf"\1{MASK}"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+(?=@)", re.I), rf"\1{MASK}"),
    # password='...' of a libpq string, with its backslash escapes, or "password": "..." of JSON.
    (
        re.compile(rf"(\b{_SECRET_NAME}[\"']?\s*[=:]\s*)'(?:[^'\\]|\\.)*'?", re.I | re.S),
        rf"\1'{MASK}'",
    ),
    (
        re.compile(rf"(\b{_SECRET_NAME}[\"']?\s*[=:]\s*)\"(?:[^\"\\]|\\.)*\"?", re.I | re.S),
        rf'\1"{MASK}"',
    ),
    (re.compile(rf"(\b{_SECRET_NAME}\s*=\s*)(?!['\"])(?:\\.|[^\s&\\])+", re.I), rf"\1{MASK}"),
)


def redact(text: str, secrets: Iterable[str | None] = ()) -> str:
    """`text` with every password in it shown as ***.

    Finds those in URLs, in `password=...` of any quoting, and each of `secrets` wherever
    it stands, plain or percent-encoded. Secrets of one or two characters are replaced only
    where they stand alone.
    """
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        for form in dict.fromkeys((secret, quote(secret, safe=""), repr(secret)[1:-1])):
            text = _without(text, form)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def _without(text: str, secret: str) -> str:
    if len(secret) > 2:
        return text.replace(secret, MASK)
    return re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
