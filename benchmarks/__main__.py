"""`make bench`: python -m benchmarks [drain] [adopted] [batches] [fair] [limits] [--million]
[--peers [NAME ...]] [--rows N] [--rounds N] [--slots N] [--json FILE]"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import adopted, batches, contest, drain, fair, limits, million


class Scenario(NamedTuple):
    """run: takes rows, rounds and slots. rows, rounds: unless said otherwise."""

    run: Callable[[int, int, int], dict[str, Any]]
    rows: int
    rounds: int


SCENARIOS = {
    "drain": Scenario(drain.run, 50_000, 5),
    "adopted": Scenario(adopted.run, 20_000, 3),
    "batches": Scenario(batches.run, 20_000, 3),
    "fair": Scenario(fair.run, 1_000_000, 300),
    "limits": Scenario(limits.run, 20_000, 5),
}
MILLION = Scenario(million.run, 1_000_000, 3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], default=[])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--slots", type=int, default=10)
    parser.add_argument(
        "--million", action="store_true", help="adopted: claims from a table of a million rows"
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=contest.PEERS,
        metavar="NAME",
        help=f"beside other queues: {', '.join(contest.PEERS)} (default: all of them)",
    )
    parser.add_argument("--peers-venv", type=Path, metavar="DIR", help="where peers are installed")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    if arguments.peers is not None:
        figures["peers"] = contest.run(
            arguments.peers,
            rows=arguments.rows,
            rounds=arguments.rounds or 5,
            slots=arguments.slots,
            directory=arguments.peers_venv,
        )
    for name in arguments.scenario or ([] if figures else SCENARIOS):
        print(f"== {name}")
        found = MILLION if arguments.million and name == "adopted" else SCENARIOS[name]
        rows, rounds = arguments.rows or found.rows, arguments.rounds or found.rounds
        figures[name] = found.run(rows, rounds, arguments.slots)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
