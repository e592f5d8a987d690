"""The contest's figures as one table: medians, their spread, and ours against each peer's."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

Contestants = Mapping[str, Mapping[str, list[float]]]
HEADINGS = {"rows/s": "rows/s", "p50 ms": "p50, ms", "p99 ms": "p99, ms"}
COSTS = ("client us/row", "server us/row", "peak RSS MB")


def show(
    figures: Mapping[str, Contestants], ours: str, about: Mapping[str, str], console: Console
) -> None:
    """about: of each contestant, printed beneath."""
    table = Table(box=None, pad_edge=False)
    table.add_column("scenario", no_wrap=True)
    table.add_column("", no_wrap=True)
    for head in ("median", "min..max", f"{ours}/it", *COSTS):
        table.add_column(head, justify="right", no_wrap=True)
    for scenario, contestants in figures.items():
        for figure, heading in HEADINGS.items():
            _section(table, f"{scenario}, {heading}", figure, contestants, ours)
    console.print(table)
    console.print(f"{ours}/it: ahead above 1 in rows/s, below 1 in ms", highlight=False)
    for name, what in about.items():
        console.print(f"{name}: {what}", markup=False, highlight=False)


def _section(table: Table, title: str, figure: str, contestants: Contestants, ours: str) -> None:
    shown = {name: found for name, found in contestants.items() if found.get(figure)}
    reference = statistics.median(shown[ours][figure]) if ours in shown else None
    for name, found in shown.items():
        values = found[figure]
        middle = statistics.median(values)
        table.add_row(
            title,
            name,
            _number(middle),
            f"{_number(min(values))}..{_number(max(values))}",
            "" if reference is None or name == ours else f"{reference / middle:.2f}",
            *(_number(statistics.median(found[cost])) if cost in found else "" for cost in COSTS),
        )
        title = ""
    if shown:
        table.add_section()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
