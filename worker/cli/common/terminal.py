"""What is said to people, on stderr; colours where they are wanted."""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def say(text: str, *, error: bool = False) -> None:
    """A message on stderr. error: its first line is red where there is colour."""
    text = printable(text)
    if error and colours(sys.stderr):
        first, *rest = text.split("\n", 1)
        text = "\n".join((f"\x1b[31;1m{first}\x1b[0m", *rest))
    sys.stdout.flush()  # what was shown before stands before it, where both go to one place
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()


def colours(stream: TextIO) -> bool:
    """NO_COLOR says no, else FORCE_COLOR says yes, else a terminal that is not dumb does."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def printable(text: str) -> str:
    """`text` with control characters shown as escapes: what stands in a row must not be able to
    drive the terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)
