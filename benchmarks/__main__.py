"""`make bench`: python -m benchmarks [drain|batches ...] [--rows N] [--rounds N] [--slots N]
[--json FILE]"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks import batches, drain

SCENARIOS = {"drain": drain.run, "batches": batches.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], default=list(SCENARIOS))
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slots", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    figures = {}
    for name in arguments.scenario:
        print(f"== {name}")
        figures[name] = SCENARIOS[name](arguments.rows, arguments.rounds, arguments.slots)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
