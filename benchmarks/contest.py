"""The same work for us and for other Postgres queues, in turns: python -m benchmarks --peers.

Each has a database of its own in one durable cluster, and each run is a process of its own under
`benchmarks.peers.contract`. A slow one gets fewer rows, a fixed number each, so that a run takes
some seconds. A peer that fails is left out of what follows in that scenario, and named.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from rich.console import Console

from benchmarks import commits, pgbench, server
from benchmarks.peers import environments, table
from benchmarks.peers.contract import WARMING
from tests.postgres import Cluster, with_database
from worker import __version__

ROOT = Path(__file__).parent.parent
OURS, LIMIT, COMMITS = "ours", "pgbench, our SQL", "two commits alone"
IO_SLOTS, LATENCY_SLOTS = 100, 10
RATE = 100  # rows a second, for latency
WIDTH = 120
TIMEOUT = 180.0  # seconds that one process may take


class Peer(NamedTuple):
    """rows: in drain and bulk, so that neither takes more than 8 s on two cores."""

    rows: int
    python: tuple[int, int] = (3, 11)


PEERS = {
    "pgqueuer": Peer(50_000),
    "chancy": Peer(10_000),
    "oban": Peer(5_000, python=(3, 12)),
    "saq": Peer(4_000),
    "procrastinate": Peer(4_000),
}
OUR_ROWS = 50_000
IO_ROWS, SINGLE_ROWS, LATENCY_ROWS = 10_000, 1_000, 1_000

Figures = dict[str, dict[str, dict[str, list[float]]]]  # scenario -> contestant -> figure


class Failed(Exception):
    """A contestant's process did not do what it was to."""


@dataclass(frozen=True)
class Contestant:
    """command: to which the contract's are added."""

    name: str
    command: tuple[str, ...]
    url: str
    rows: int
    about: str

    def run(self, *arguments: object) -> dict[str, Any]:
        """What it printed. Raises Failed."""
        with self.start(*arguments) as process:
            return self.ended(process)

    def start(self, command: object, *arguments: object) -> subprocess.Popen[str]:
        asked = [*self.command, command, self.url, *arguments]
        return subprocess.Popen(
            list(map(str, asked)),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Failed(f"took more than {TIMEOUT:.0f} s") from None
        if process.returncode:
            raise Failed((err.strip().splitlines() or ["no word"])[-1])
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


@dataclass(frozen=True)
class Sizes:
    """most: rows, at the most, for everybody. slots: ours, in drain."""

    most: int | None
    slots: int

    def of(self, rows: int) -> int:
        return rows if self.most is None else min(rows, self.most)


# -- the scenarios: a contestant's figures in one round ----------------------------------------


def drain(one: Contestant, cluster: Cluster, sizes: Sizes) -> dict[str, dict[str, float]]:
    """And bulk: how the rows got there."""
    rows = sizes.of(one.rows)
    bulk = one.run("seed", "noop", rows)
    return {
        "drain": _worked(one, cluster, "drain", "noop", rows, sizes.slots),
        "bulk enqueue": _rate(bulk, rows),
    }


def io(one: Contestant, cluster: Cluster, sizes: Sizes) -> dict[str, dict[str, float]]:
    rows = sizes.of(min(one.rows, IO_ROWS))
    one.run("seed", "wait", rows)
    return {"I/O-bound": _worked(one, cluster, "io", "wait", rows, IO_SLOTS)}


def single(one: Contestant, _cluster: Cluster, sizes: Sizes) -> dict[str, dict[str, float]]:
    rows = sizes.of(SINGLE_ROWS)
    return {"single enqueue": _rate(one.run("single", rows), rows)}


def latency(one: Contestant, _cluster: Cluster, sizes: Sizes) -> dict[str, dict[str, float]]:
    rows = sizes.of(LATENCY_ROWS)
    one.run("seed", "stamp", WARMING)
    with one.start("listen", rows, LATENCY_SLOTS) as worker:
        try:
            assert worker.stdout is not None
            if worker.stdout.readline() != "ready\n":
                raise Failed("its worker never became ready")
            produced = one.run("produce", rows, RATE)
            listened = one.ended(worker)
        finally:
            worker.kill()
    waits = listened["waits"]
    if len(waits) != rows:
        raise Failed(f"{len(waits)} of {rows} rows were started")
    return {
        "latency": {
            **_percentiles(waits),
            "latest row given, ms": produced["late"],
            "peak RSS MB": listened["rss_mb"],
        }
    }


Scenario = Callable[[Contestant, Cluster, Sizes], dict[str, dict[str, float]]]
SCENARIOS: dict[str, Scenario] = {"drain": drain, "io": io, "single": single, "latency": latency}


def _percentiles(waits: Sequence[float]) -> dict[str, float]:
    waits, count = sorted(waits), len(waits)
    return {"p50 ms": waits[count // 2], "p99 ms": waits[min(count - 1, count * 99 // 100)]}


def _worked(
    one: Contestant, cluster: Cluster, scenario: str, kind: str, rows: int, slots: int
) -> dict[str, float]:
    cpu, wal = server.cpu(cluster), server.wal(cluster)
    found = one.run("work", scenario, kind, rows, slots)
    server_cpu, wal = server.cpu(cluster) - cpu, server.wal(cluster) - wal
    if found["rows"] != rows:
        raise Failed(f"{found['rows']} of {rows} rows were finished")
    return _rate(found, rows) | {
        "server us/row": 1e6 * server_cpu / rows,
        "WAL bytes/row": wal / rows,
        "peak RSS MB": found["rss_mb"],
    }


def _rate(found: dict[str, Any], rows: int) -> dict[str, float]:
    return {"rows/s": rows / found["seconds"], "client us/row": 1e6 * found["cpu"] / rows}


# -- the contest ----------------------------------------------------------------------------


def run(
    names: Sequence[str] = (),
    *,
    rows: int | None = None,
    rounds: int = 5,
    slots: int = 10,
    directory: Path | None = None,
) -> Figures:
    """Every scenario, `rounds` times in turns, and a table. names: of peers, () for all."""
    console = Console()
    if not console.is_terminal:  # a file or a pipe takes the whole table
        console = Console(width=WIDTH)
    with server.server() as cluster:
        contestants = [ours(cluster), *_peers(cluster, names or list(PEERS), directory, console)]
        sizes = Sizes(rows, slots)
        figures: Figures = {}
        for scenario in SCENARIOS:
            _contest(scenario, contestants, cluster, sizes, rounds, figures, console)
    about = {one.name: f"{one.about}; {sizes.of(one.rows):,} rows" for one in contestants}
    table.show(figures, OURS, about, console)
    return figures


def _contest(
    scenario: str,
    contestants: Sequence[Contestant],
    cluster: Cluster,
    sizes: Sizes,
    rounds: int,
    figures: Figures,
    console: Console,
) -> None:
    left = list(contestants)
    for n in range(rounds):
        for one in list(left):
            with console.status(f"{scenario}, round {n + 1} of {rounds}: {one.name}"):
                try:
                    add(figures, one.name, SCENARIOS[scenario](one, cluster, sizes))
                except Failed as failed:
                    console.print(f"{one.name} left out of {scenario}: {failed}", markup=False)
                    left.remove(one)
        if scenario == "drain":
            count = sizes.of(OUR_ROWS)
            server.seed(cluster, count)
            add(figures, LIMIT, {"drain": {"rows/s": pgbench.drain(cluster, count)}})
        if scenario == "latency":
            waits = commits.waits(cluster, sizes.of(LATENCY_ROWS), RATE)
            add(figures, COMMITS, {"latency": _percentiles(waits)})


def add(figures: Figures, name: str, found: dict[str, dict[str, float]]) -> None:
    for scenario, values in found.items():
        kept = figures.setdefault(scenario, {}).setdefault(name, {})
        for figure, value in values.items():
            kept.setdefault(figure, []).append(value)


def ours(cluster: Cluster) -> Contestant:
    python = ".".join(map(str, sys.version_info[:3]))
    return Contestant(
        OURS,
        (sys.executable, "-m", "benchmarks.ours"),
        cluster.url,
        OUR_ROWS,
        f"{__version__}, Python {python}",
    )


def _peers(
    cluster: Cluster, names: Sequence[str], directory: Path | None, console: Console
) -> list[Contestant]:
    """Installed, each with its tables in a database of its own; those that can be."""
    found = []
    for name in names:
        try:
            environment = environments.environment(
                directory or environments.default_directory(), PEERS[name].python
            )
            one = _peer(cluster, name, environment)
            one.run("install")
        except (environments.NoEnvironment, Failed) as failed:
            console.print(f"{name} left out: {failed}", markup=False)
        else:
            found.append(one)
    return found


def _peer(cluster: Cluster, name: str, environment: environments.Environment) -> Contestant:
    with psycopg.connect(cluster.url, autocommit=True) as db:
        db.execute(f"create database peer_{name}".encode())
    return Contestant(
        name,
        (str(environment.python), "-m", "benchmarks.peers", name),
        with_database(cluster.url, f"peer_{name}"),
        PEERS[name].rows,
        f"{environments.pinned(name)}, Python {environment.version}",
    )
