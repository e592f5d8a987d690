"""Does the runs and prints their figures.

    python -m tests.chaos [--short] [--adopted | --session] [run ...]

--adopted: on a user's own table, whose user changes rows meanwhile; --session: on such a table,
with handlers that take a session.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.adopted import Adopted, AdoptedInSession
from tests.chaos.place import Place
from tests.chaos.runs import RUNS
from tests.chaos.workload import Jobs, Workload
from tests.postgres import Cluster
from worker.migrate import upgrade

ON_ADOPTED = ("kills", "freezes", "stops", "restarts", "terminations", "crashes", "locks")
WORKLOADS: dict[str, type[Workload]] = {"--adopted": Adopted, "--session": AdoptedInSession}


def main(arguments: list[str]) -> int:
    flags = [argument for argument in arguments if argument.startswith("--")]
    workload = next((WORKLOADS[flag] for flag in flags if flag in WORKLOADS), Jobs)
    every = [n for n in RUNS if n != "locks"] if workload is Jobs else ON_ADOPTED
    names = [argument for argument in arguments if argument not in flags] or list(every)
    if unknown := {*names} - {*every} | {*flags} - {*WORKLOADS, "--short"}:
        _say(f"no such run: {', '.join(sorted(unknown))}; there are: {', '.join(every)}")
        return 2
    return max([_one(name, workload, flags) for name in names])


def _one(name: str, workload: type[Workload], flags: list[str]) -> int:
    run = RUNS[name]
    began = time.monotonic()
    with Cluster() as cluster, tempfile.TemporaryDirectory(prefix="duerow-chaos-") as directory:
        upgrade(cluster.url)
        place = Place(cluster.url, Path(directory), cluster, workload)
        try:
            figures = run.run(place, run.SHORT if "--short" in flags else run.FULL)
        except AssertionError as failure:
            _say(f"{name}: {failure}")
            return 1
    command = " ".join(["python -m tests.chaos", *flags, name])
    _say(f"{figures}\n$ {command}   # {time.monotonic() - began:.0f} s\n")
    return 0 if figures.kept else 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
