"""What an example printed, read back."""

from __future__ import annotations

import re


def tables(text: str) -> list[list[dict[str, str]]]:
    """Its Markdown tables: for each row the cells by the heading of their column."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [
            [cell.strip() for cell in line.strip("| ").split("|")] for line in block.splitlines()
        ]
        names, _, *rows = lines
        found.append([dict(zip(names, row, strict=True)) for row in rows])
    return found


def number(cell: str) -> float:
    """The number that a cell begins with."""
    match = re.match(r"-?[\d.]+", cell)
    assert match, f"no number: {cell!r}"
    return float(match[0])
