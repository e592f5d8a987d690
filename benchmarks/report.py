"""Figures as people read them: medians, their spread, and ratios to a reference of the same run.

A result is what a scenario's `run` returns: sizes, and for each contestant its figures, each with
one value a round (or one a claim, a second, ...):

    {"rows": 50000, "duerow": {"rows/s": [15000.0, ...], ...}, "pgbench": {"rows/s": [...]}}
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

MANY = 100  # values of which a p99 can be told
WIDTH = 120  # where there is no terminal

Figures = Mapping[str, Sequence[float]]


def contestants(result: Mapping[str, Any]) -> dict[str, Figures]:
    return {name: found for name, found in result.items() if isinstance(found, Mapping)}


def sizes(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found for name, found in result.items() if not isinstance(found, Mapping)}


def median(result: Mapping[str, Any], contestant: str, figure: str) -> float:
    return statistics.median(contestants(result)[contestant][figure])


def show(result: Mapping[str, Any], reference: str | None = None) -> None:
    """A line for each figure of each contestant. reference: the ratios are to this one; by default
    to the first."""
    found = contestants(result)
    reference = reference or next(iter(found))
    names = list(dict.fromkeys(figure for figures in found.values() for figure in figures))
    many = any(len(values) >= MANY for figures in found.values() for values in figures.values())
    table = Table(title=_title(result), title_justify="left", box=None, pad_edge=False)
    heads = ("median", "min", "max", *(("p99",) if many else ()), "runs", "ratio")
    for head in ("figure", "", *heads):
        table.add_column(head, justify="right" if head in heads else "left", no_wrap=True)
    for name in names:
        label = name
        for contestant, figures in found.items():
            if values := figures.get(name):
                base = found[reference].get(name)
                table.add_row(label, contestant, *_cells(values, base, many=many))
                label = ""
        table.add_section()
    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(table)


def _title(result: Mapping[str, Any]) -> str:
    told = (f"{name}: {_size(value)}" for name, value in sizes(result).items())
    return ", ".join(told)


def _size(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _cells(values: Sequence[float], base: Sequence[float] | None, *, many: bool) -> list[str]:
    middle = statistics.median(values)
    cells = [plain(middle), plain(min(values)), plain(max(values))]
    if many:
        cells.append(plain(p99(values)) if len(values) >= MANY else "")
    below = statistics.median(base) if base else 0.0
    return [*cells, str(len(values)), f"{middle / below:.2f}" if below else ""]


def p99(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def plain(value: float) -> str:
    """As many digits as mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
