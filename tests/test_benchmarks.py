"""The contest of benchmarks: we run through it for real; of the peers, which need an environment of
their own, what can be known without installing them."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from benchmarks import contest, memory
from benchmarks.__main__ import SCENARIOS, _parser, _sizes
from benchmarks.ours import Ours
from benchmarks.peers import contract, environments, table
from tests.postgres import Cluster
from worker.migrate import upgrade

ROOT = Path(__file__).parent.parent
ROWS = 200
# What a peer's environment holds besides the peer, and what of the project runs there.
DRIVERS = {"asyncpg", "psycopg", "uvloop"}
SHARED = ("benchmarks.peers.contract", "benchmarks.memory")


# -- we run through it ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as started:
        upgrade(started.url)
        yield started


@pytest.fixture
def ours(cluster: Cluster) -> contest.Contestant:
    return contest.ours(cluster)


@pytest.mark.process
def test_we_drain_under_the_contract(ours: contest.Contestant, cluster: Cluster) -> None:
    figures: contest.Figures = {}
    contest.add(figures, ours.name, contest.drain(ours, cluster, contest.Sizes(ROWS, 10)))
    assert list(figures) == ["drain", "bulk enqueue"]
    assert all(values[0] > 0 for values in figures["drain"]["ours"].values()), figures
    assert figures["bulk enqueue"]["ours"]["rows/s"][0] > 0
    assert json.loads(json.dumps(figures)) == figures
    with psycopg.connect(ours.url) as db:
        finished = db.execute("select count(*) from worker.jobs_finished where state = 'done'")
        assert finished.fetchone() == (ROWS,)


@pytest.mark.process
def test_we_tell_how_long_rows_wait(ours: contest.Contestant, cluster: Cluster) -> None:
    found = contest.latency(ours, cluster, contest.Sizes(50, 10))["latency"]
    assert 0 < found["p50 ms"] <= found["p99 ms"] < 10_000


async def test_rows_that_sleep_and_single_rows(pg: psycopg.Connection, db_url: str) -> None:
    await contract.seed(Ours(), db_url, "wait", 40)
    found = await contract.work(Ours(), db_url, "io", "wait", 40, 2)
    assert found["rows"] == 40
    assert found["seconds"] >= contract.SLEEP * 40 / 2

    assert (await contract.single(Ours(), db_url, 5))["rows"] == 5
    assert pg.execute(
        "select count(*), count(distinct xmin::text) from worker.jobs"
    ).fetchone() == (5, 5)


async def test_a_worker_that_ends_early_is_no_figure(db_url: str) -> None:
    await contract.seed(Ours(), db_url, "noop", 5)
    with pytest.raises(RuntimeError, match="the worker ended of itself, 1 rows left"):
        await contract.work(Ours(), db_url, "drain", "noop", 6, 10)


def test_a_contestant_that_fails_says_why() -> None:
    code = "import sys; sys.exit(f'cannot {sys.argv[1]}')"
    one = contest.Contestant("it", (sys.executable, "-c", code), "url", 1, "")
    with pytest.raises(contest.Failed, match=r"^cannot dance$"):
        one.run("dance")


# -- the peers, as far as they can be known -------------------------------------------------------


@pytest.mark.parametrize("name", contest.PEERS)
def test_a_peers_module_imports_nothing_else_that_must_be_installed(name: str) -> None:
    assert _strange(f"peers/{name}.py", {name}) == set()


@pytest.mark.parametrize("path", ["peers/contract.py", "peers/__main__.py", "memory.py"])
def test_what_runs_beside_a_peer_needs_nothing_of_the_project(path: str) -> None:
    assert _strange(path, set()) == set()


def _strange(path: str, known: set[str]) -> set[str]:
    """The modules that it imports and that a peer's environment does not hold."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / "benchmarks" / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    there = known | DRIVERS | sys.stdlib_module_names
    return {
        name
        for name in found
        if name.partition(".")[0] not in there and not name.startswith(SHARED)
    }


def test_every_requirement_is_one_version() -> None:
    asked = environments.REQUIREMENTS.read_text().splitlines()
    assert [line for line in asked if not re.match(r"[\w.-]+==[\w.]+( ;.*)?$", line)] == []
    direct = environments.REQUIREMENTS.with_suffix(".in").read_text().splitlines()
    for line in direct:
        if not line.startswith("#"):
            package, version = re.sub(r"\[.*\]|;.*", "", line).strip().split("==")
            assert environments.pinned(package) == version
    assert {environments.pinned(name) for name in contest.PEERS}


def test_an_environment_is_made_once_and_again_when_its_requirements_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "requirements.txt"
    monkeypatch.setattr(environments, "REQUIREMENTS", asked)
    asked.write_text("# nothing\n")
    made = environments.environment(tmp_path / "kept", (3, 11))
    assert subprocess.run([made.python, "-c", "pass"], check=False).returncode == 0

    left = made.python.parent.parent / "left"
    left.touch()
    assert environments.environment(tmp_path / "kept", (3, 11)) == made
    assert left.exists()

    asked.write_text("# nothing, said otherwise\n")
    assert environments.environment(tmp_path / "kept", (3, 11)) == made
    assert not left.exists()


def test_an_environment_that_no_python_here_can_have(tmp_path: Path) -> None:
    with pytest.raises(environments.NoEnvironment, match=r"needs Python 3\.99"):
        environments.environment(tmp_path, (3, 99))


# -- what is printed ------------------------------------------------------------------------------


def test_the_table_has_medians_and_ours_against_each() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    figures = {
        "drain": {
            "ours": {"rows/s": [900.0, 1000.0, 1200.0], "client us/row": [20.0]},
            "a peer": {"rows/s": [400.0, 500.0, 600.0]},
        }
    }
    table.show(figures, "ours", {"ours": "0.1", "a peer": "2.0"}, console)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["drain,", "rows/s", "ours", "1,000", "900..1,200", "20.0"] in lines
    assert ["a", "peer", "500", "400..600", "2.00"] in lines
    assert ["a", "peer:", "2.0"] in lines


def test_the_peak_is_this_processs_own() -> None:
    """A child is not told its parent's, as ru_maxrss would have it."""
    big = bytearray(200_000_000)
    code = "from benchmarks.memory import peak_rss_mb; print(peak_rss_mb())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert float(done.stdout) < 100
    assert len(big) / 1e6 < memory.peak_rss_mb()


def test_help_names_the_peers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--peers" in done.stdout
    for name in contest.PEERS:
        assert name in done.stdout


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("size", [[], ["--full"], ["--rows", "7"]])
def test_each_scenario_takes_its_sizes(name: str, size: list[str]) -> None:
    scenario = SCENARIOS[name]
    sizes = _sizes(scenario, _parser().parse_args([name, *size]))
    run = importlib.import_module(f"benchmarks.{name}").run
    assert inspect.signature(run).bind(**sizes)
    assert sizes["rows"] == (
        7 if "7" in size else (scenario.full if size else scenario.quick)["rows"]
    )
