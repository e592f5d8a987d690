"""`make bench`: python -m benchmarks [SCENARIO...] [--full] [--rows N] ... [--json FILE]

Without a name, those that tell most run, at sizes that take a quarter of an hour in all; `--full`
takes the sizes that figures are told of. Contestants take turns in each round, figures are medians
with their spread, and ratios are to a reference of the same run: nothing passes or fails by time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.contest import PEERS


class Scenario(NamedTuple):
    """A module whose `run` takes rows, rounds and what else its sizes name.

    quick: sizes that take a minute or so; full: those that figures are told of. asked: whether it
    runs where none is named. slots: of each worker; None where none works.
    """

    about: str
    quick: Mapping[str, int]
    full: Mapping[str, int]
    asked: bool = True
    slots: int | None = 10


SCENARIOS = {
    "drain": Scenario(
        "no-op rows through one worker, beside pgbench with the same SQL",
        {"rows": 50_000, "rounds": 3},
        {"rows": 50_000, "rounds": 5},
    ),
    "processes": Scenario(
        "the same through one and two workers, beside 1, 2 and 4 clients of pgbench",
        {"rows": 50_000, "rounds": 3},
        {"rows": 100_000, "rounds": 5},
    ),
    "bare": Scenario(
        "what a row costs in a bare loop of Python, beside a worker's drain",
        {"rows": 50_000, "rounds": 3},
        {"rows": 50_000, "rounds": 5},
    ),
    "steady": Scenario(
        "two workers drain what one process enqueues",
        {"rows": 20_000, "rounds": 1, "seconds": 20},
        {"rows": 20_000, "rounds": 3, "seconds": 60},
    ),
    "defaults": Scenario(
        "default settings beside tuned ones: drain, and rows that wait for 50 ms",
        {"rows": 50_000, "rounds": 2},
        {"rows": 50_000, "rounds": 5},
    ),
    "backlog": Scenario(
        "the first rows of a long backlog, beside as many alone",
        {"rows": 20_000, "rounds": 3, "backlog": 200_000},
        {"rows": 20_000, "rounds": 5, "backlog": 1_000_000},
    ),
    "history": Scenario(
        "drain with many rows finished before, beside none",
        {"rows": 50_000, "rounds": 3, "history": 1_000_000},
        {"rows": 50_000, "rounds": 5, "history": 10_000_000},
    ),
    "snapshot": Scenario(
        "ms of a claim of 100 while rows pass under a held snapshot (rounds: claims at a point)",
        {"rows": 200_000, "rounds": 100},
        {"rows": 1_000_000, "rounds": 200},
    ),
    "claimers": Scenario(
        "1 to 64 connections that claim and settle 50 rows a call",
        {"rows": 50_000, "rounds": 2},
        {"rows": 200_000, "rounds": 5},
    ),
    "idle": Scenario(
        "statements, transactions and CPU of workers with nothing to do",
        {"rows": 0, "rounds": 1, "seconds": 10},
        {"rows": 0, "rounds": 1, "seconds": 30},
    ),
    "limits": Scenario(
        "no-op rows under gates that never close",
        {"rows": 20_000, "rounds": 2},
        {"rows": 20_000, "rounds": 5},
    ),
    "batches": Scenario(
        "fifty rows a call, beside single rows",
        {"rows": 20_000, "rounds": 1},
        {"rows": 20_000, "rounds": 3},
    ),
    "fair": Scenario(
        "claims among 10,000 tenants, beside plain ones (rounds: claims)",
        {"rows": 200_000, "rounds": 100},
        {"rows": 1_000_000, "rounds": 300},
        asked=False,
        slots=None,
    ),
    "adopted": Scenario(
        "rows of a user's own table: the ways to claim them",
        {"rows": 5_000, "rounds": 1},
        {"rows": 20_000, "rounds": 3},
        asked=False,
        slots=None,
    ),
    "million": Scenario(
        "claims from a user's table of a million rows",
        {"rows": 200_000, "rounds": 1},
        {"rows": 1_000_000, "rounds": 3},
        asked=False,
        slots=None,
    ),
    "enqueue": Scenario(
        "ways to enqueue, beside the drivers' own INSERT and COPY",
        {"rows": 20_000, "rounds": 2},
        {"rows": 50_000, "rounds": 5},
        asked=False,
        slots=None,
    ),
}
SIZES = {
    "rows": "rows of a round",
    "rounds": "of all contestants in turn",
    "slots": "rows that run at once",
    "backlog": "backlog: rows that are due",
    "history": "history: rows that were finished before",
    "seconds": "steady, idle: of a window",
}


def main() -> None:
    arguments = _parser().parse_args()
    results: dict[str, Any] = {}
    asked = [name for name, one in SCENARIOS.items() if one.asked and arguments.peers is None]
    if arguments.peers is not None:
        results["peers"] = _contest(arguments)
    for name in arguments.scenario or asked:
        name = "million" if name == "adopted" and arguments.million else name
        scenario = SCENARIOS[name]
        print(f"\n== {name}: {scenario.about}", flush=True)
        started = time.monotonic()
        run = importlib.import_module(f"benchmarks.{name}").run
        results[name] = run(**_sizes(scenario, arguments))
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
        _write(results, arguments.json)
    _write(results, arguments.json)


def _sizes(scenario: Scenario, arguments: argparse.Namespace) -> dict[str, int]:
    sizes = dict(scenario.full if arguments.full else scenario.quick)
    if scenario.slots is not None:
        sizes["slots"] = scenario.slots
    given = {size: getattr(arguments, size) for size in sizes}
    return sizes | {size: value for size, value in given.items() if value is not None}


def _contest(arguments: argparse.Namespace) -> Any:
    return importlib.import_module("benchmarks.contest").run(
        arguments.peers,
        rows=arguments.rows,
        rounds=arguments.rounds or 5,
        slots=arguments.slots or 10,
        directory=arguments.peers_venv,
    )


def _write(results: Mapping[str, Any], file: Path | None) -> None:
    """After each scenario: what one has measured outlives another's failure."""
    if file is not None:
        machine = importlib.import_module("benchmarks.machine")  # steady's processes do not need it
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            json.dumps({"machine": machine.facts(), "results": results}, indent=1) + "\n"
        )


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:11} {one.about}" for name, one in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"scenarios:\n{listed}",
    )
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], metavar="SCENARIO")
    parser.add_argument("--full", action="store_true", help="larger sizes, and more rounds")
    for size, about in SIZES.items():
        parser.add_argument(f"--{size}", type=int, metavar="N", help=about)
    parser.add_argument("--million", action="store_true", help="adopted: the scenario `million`")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=PEERS,
        metavar="NAME",
        help=f"beside other queues: {', '.join(PEERS)}, or all of them",
    )
    parser.add_argument("--peers-venv", type=Path, metavar="DIR", help="where peers are installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser


if __name__ == "__main__":
    main()
