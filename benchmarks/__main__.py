"""`make bench`: python -m benchmarks [SCENARIO...] [--full] [--rows N] ... [--json FILE]"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine


class Scenario(NamedTuple):
    """A module whose `run` takes rows, rounds, slots and what else its sizes name.

    quick: sizes that take a minute or so; full: those that figures are told of. asked: whether it
    runs where none is named.
    """

    about: str
    quick: Mapping[str, int]
    full: Mapping[str, int]
    asked: bool = True


SCENARIOS = {
    "drain": Scenario(
        "no-op rows through one worker, beside pgbench with the same SQL",
        {"rows": 50_000, "rounds": 3},
        {"rows": 50_000, "rounds": 5},
    ),
}
SIZES = {
    "rows": "rows of a round",
    "rounds": "of all contestants in turn",
    "slots": "rows that run at once",
}


def main() -> None:
    arguments = _parser().parse_args()
    results: dict[str, Any] = {}
    for name in arguments.scenario or [name for name, one in SCENARIOS.items() if one.asked]:
        name = "million" if name == "adopted" and arguments.million else name
        scenario = SCENARIOS[name]
        print(f"\n== {name}: {scenario.about}", flush=True)
        sizes = {"slots": 10, **(scenario.full if arguments.full else scenario.quick)}
        given = {size: getattr(arguments, size) for size in sizes}
        sizes |= {size: value for size, value in given.items() if value is not None}
        started = time.monotonic()
        results[name] = importlib.import_module(f"benchmarks.{name}").run(**sizes)
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
    if arguments.json:
        told = {"machine": machine.facts(), "results": results}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(told, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:11} {one.about}" for name, one in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"scenarios:\n{listed}",
    )
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], metavar="SCENARIO")
    parser.add_argument(
        "--full", action="store_true", help="sizes that take hours rather than minutes"
    )
    for size, about in SIZES.items():
        parser.add_argument(f"--{size}", type=int, metavar="N", help=about)
    parser.add_argument("--million", action="store_true", help="adopted: the scenario `million`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser


if __name__ == "__main__":
    main()
