"""Figures for people, on stdout: the same on a terminal and in a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def title(text: str) -> None:
    say(f"\n{text}\n{'-' * len(text)}")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table; numbers to the right."""
    texts = [[_text(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    right = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        cells = [
            value.rjust(width) if numeric else value.ljust(width)
            for value, width, numeric in zip(values, widths, right, strict=True)
        ]
        return "| " + " | ".join(cells) + " |"

    rules = ["-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)]
    say(line(columns))
    say("|" + "|".join(rules) + "|")
    for text in texts:
        say(line(text))


def verdict(problems: Sequence[str]) -> bool:
    """Whether there are none."""
    say()
    for problem in problems:
        say(f"NOT TRUE: {problem}")
    if not problems:
        say("all of it was true")
    return not problems


def _text(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
