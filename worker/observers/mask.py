"""Hides what looks like a secret wherever values are shown to people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from worker.url import redact
from worker.url.redact import MASK

_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase|code)?($|_)|passwd|pwd|secret|token|credential|cookie|authorization"
    r"|(api|access|private|signing|encryption)_?-?key|card_?-?number|cvv|cvc|iban|ssn",
    re.IGNORECASE,
)


# What `redact` looks for, roughly and quickly: it takes 10 us, and nearly no text holds a password.
_MAY_HOLD_ONE = re.compile(r"://|pass|pwd", re.IGNORECASE)


def masked(value: Any, name: str = "") -> Any:
    """`value` with *** for everything whose key looks secret, and for passwords in its texts.

    name: the key that `value` stands under. Mappings and lists are gone through; nothing that is
    given is changed.
    """
    if name and looks_secret(name) and value is not None:
        return MASK
    if isinstance(value, str):
        return redact(value) if _MAY_HOLD_ONE.search(value) else value
    if isinstance(value, Mapping):
        return {key: masked(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return value


@lru_cache(1000)
def looks_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None
