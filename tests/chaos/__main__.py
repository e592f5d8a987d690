"""python -m tests.chaos [--short] [run ...]: does the runs and prints their figures."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.place import Place
from tests.chaos.runs import RUNS
from tests.chaos.scene import Violated
from tests.postgres import Cluster
from worker.migrate import upgrade


def main(arguments: list[str]) -> int:
    short = "--short" in arguments
    names = [name for name in arguments if name != "--short"] or list(RUNS)
    if unknown := set(names) - set(RUNS):
        _say(f"no such run: {', '.join(sorted(unknown))}; there are: {', '.join(RUNS)}")
        return 2
    return max([_one(name, short) for name in names])


def _one(name: str, short: bool) -> int:
    began = time.monotonic()
    with Cluster() as cluster, tempfile.TemporaryDirectory(prefix="duerow-chaos-") as directory:
        upgrade(cluster.url)
        place = Place(cluster.url, Path(directory), cluster)
        try:
            figures = RUNS[name].run(place, RUNS[name].SHORT if short else RUNS[name].FULL)
        except Violated as violated:
            _say(violated)
            return 1
    command = f"python -m tests.chaos {name}{' --short' if short else ''}"
    _say(f"{figures}\n$ {command}   # {time.monotonic() - began:.0f} s\n")
    return 0 if figures.kept else 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
