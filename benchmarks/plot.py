"""The figures as a picture: python -m benchmarks.plot FILE.json... --out docs/img/performance.svg

Bars of rows a second by contestant, for no-op and for I/O-bound rows; and what a claim takes while
rows pass under a held snapshot. Of a scenario in several files the last counts. Needs
matplotlib: `uv pip install --group bench`. Colours and greys read on light and on dark pages.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import contestants

GREY = "#808080"
OURS = "#2f81f7"
LIMIT = "#a0a0a0"
OTHER = "#db8f3c"
LINES = ("#3fa45b", "#2f81f7", "#d9534f")
SIDE = 4.6  # inches
PANELS = {"drain": "no-op rows", "I/O-bound": "rows of 50 ms, 100 slots"}

Bars = dict[str, float]
Lines = dict[str, list[tuple[int, float]]]


def read(files: Sequence[Path]) -> dict[str, Any]:
    """The results of all files; of several contests, their scenarios together."""
    results: dict[str, Any] = {}
    for file in files:
        for name, found in json.loads(file.read_text())["results"].items():
            results[name] = {**results.get(name, {}), **found} if name == "peers" else found
    return results


def bars(results: Mapping[str, Any]) -> dict[str, Bars]:
    """For each panel the median rows a second by contestant, the quickest first."""
    peers = results.get("peers", {})
    found = {panel: peers.get(panel, {}) for panel in PANELS}
    panels = {
        panel: {
            name: statistics.median(figures["rows/s"])
            for name, figures in contestants(by_name).items()
            if figures.get("rows/s")
        }
        for panel, by_name in found.items()
    }
    return {
        panel: dict(sorted(rates.items(), key=lambda one: -one[1]))
        for panel, rates in panels.items()
        if rates
    }


def lines(results: Mapping[str, Any]) -> Lines:
    """For each contestant of `snapshot` the median ms of a claim after so many rows."""
    snapshot = results.get("snapshot", {})
    return {
        name: [
            (point, statistics.median(figures[f"claim ms at {point:,}"]))
            for point in snapshot["points"]
        ]
        for name, figures in contestants(snapshot).items()
    }


def draw(panels: Mapping[str, Bars], claims: Lines, out: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "duerow",  # the same figures give the same file
        "font.size": 9.0,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), GREY),
        "axes.edgecolor": GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    from matplotlib import pyplot

    count = len(panels) + bool(claims)
    figure, axes = pyplot.subplots(1, count, figsize=(SIDE * count, 3.4), squeeze=False)
    for place, (panel, rates) in zip(axes[0], panels.items(), strict=False):
        _bars(place, PANELS[panel], rates)
    if claims:
        _lines(axes[0][-1], claims)
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, transparent=True, metadata={"Date": None})
    pyplot.close(figure)


def _bars(place: Any, title: str, rates: Bars) -> None:
    drawn = place.barh(list(rates), list(rates.values()), color=[_colour(n) for n in rates])
    place.bar_label(drawn, [f"{rate:,.0f}" for rate in rates.values()], color=GREY, padding=4)
    place.invert_yaxis()
    place.set_title(f"{title}: rows/s")
    place.set_xlim(0, 1.2 * max(rates.values()))
    place.xaxis.set_major_formatter(_thousands)
    place.locator_params(axis="x", nbins=5)


def _lines(place: Any, claims: Lines) -> None:
    for (name, points), colour in zip(claims.items(), LINES, strict=False):
        passed, ms = zip(*points, strict=True)
        place.plot(passed, ms, marker="o", markersize=3.5, color=colour, label=name)
    place.set_yscale("log")
    place.yaxis.set_major_formatter(lambda ms, _: f"{ms:g}")
    place.set_title("ms of a claim of 100, a snapshot held")
    place.set_xlabel("rows that have passed")
    place.xaxis.set_major_formatter(_thousands)
    place.locator_params(axis="x", nbins=4)
    place.legend(frameon=False, labelcolor=GREY)


def _colour(name: str) -> str:
    if name.startswith("pgbench"):
        return LIMIT
    return OURS if name in ("ours", "duerow") else OTHER


def _thousands(value: float, _place: int) -> str:
    return f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.svg")
    arguments = parser.parse_args()
    results = read(arguments.files)
    panels, claims = bars(results), lines(results)
    if not panels and not claims:
        parser.error("there is nothing to draw: no contest (--peers), and no `snapshot`")
    draw(panels, claims, arguments.out)


if __name__ == "__main__":
    main()
