"""Durations as people write them: `30s`, `5m`, `1h30m`, `250ms`; a plain number is seconds."""

from __future__ import annotations

import re

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
LONGEST = 100 * 365 * UNITS["d"]
"""A hundred years: more is a slip, and overflows a timestamp."""

_PART = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ms|s|m|h|d|w)"
_WHOLE = re.compile(rf"(?:\s*{_PART})+")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")


def parse_duration(text: str | float) -> float:
    """Seconds. Raises ValueError for anything else, for less than 0 and over a hundred years."""
    if isinstance(text, bool):
        raise ValueError("a duration is written like 30s, 5m, 2h or 250ms")
    plain = str(text).strip().lower()
    if _NUMBER.fullmatch(plain):
        seconds = float(plain)
    elif _WHOLE.fullmatch(plain):
        seconds = _sum(re.findall(_PART, plain))
    elif plain.startswith("-"):
        raise ValueError("a duration cannot be negative")
    else:
        raise ValueError("a duration is written like 30s, 5m, 2h, 1h30m, 1d or 250ms")
    if seconds > LONGEST:
        raise ValueError("a duration cannot be over a hundred years")
    return seconds


def _sum(parts: list[tuple[str, str]]) -> float:
    """Added up in milliseconds, so that 1.1s is 1.1 and 250ms is 0.25."""
    return sum(float(number) * (UNITS[unit] * 1000) for number, unit in parts) / 1000


def format_duration(seconds: float) -> str:
    """The shortest such text, to the millisecond: 90 -> `1m30s`, 0.25 -> `250ms`, 0 -> `0s`."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    milliseconds = round(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    if milliseconds == 0:
        return f"{seconds * 1000:.2g}ms" if seconds else "0s"
    text = ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
        count, milliseconds = divmod(milliseconds, size)
        text += f"{count}{unit}" if count else ""
    return text + (
        f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".") + "s" if milliseconds else ""
    )
