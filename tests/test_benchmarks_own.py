"""The benchmarks of our own scenarios measure what they say, at sizes too small to tell anything.

Each `run` checks for itself that every row was settled, once; here is asked that it gives all the
figures, of the right sizes. All share one server, and none of them is asked to be quick.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks import (
    __main__ as command,
)
from benchmarks import (
    backlog,
    bare,
    claimers,
    defaults,
    drain,
    history,
    idle,
    pgbench,
    plot,
    processes,
    report,
    server,
    snapshot,
    steady,
)
from tests.postgres import Cluster, NoPostgres, with_database
from worker.migrate import upgrade

ROWS = 1_000
SLOTS = 10
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    try:
        made = Cluster(settings={"log_line_prefix": "%a|"})
    except NoPostgres as missing:
        pytest.skip(str(missing))
    with made:
        upgrade(made.url)
        yield made


@pytest.fixture(autouse=True)
def shared(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scenario runs on the one server."""

    @contextlib.contextmanager
    def its(settings: Mapping[str, str] | None = None) -> Iterator[Cluster]:
        yield cluster

    monkeypatch.setattr(server, "server", its)


def lengths(result: Mapping[str, Any], figure: str) -> dict[str, int]:
    """How many values of it each contestant has; all are positive."""
    found = report.contestants(result)
    assert all(value > 0 for figures in found.values() for value in figures.get(figure, ()))
    return {name: len(figures[figure]) for name, figures in found.items() if figure in figures}


def test_drain(capsys: pytest.CaptureFixture[str]) -> None:
    result = drain.run(ROWS, 1, SLOTS)
    assert lengths(result, drain.PASSING) == {drain.OURS: 1, drain.LIMIT: 1}
    for figure in ("rows/s", "client us/row", "server us/row", "WAL bytes/row", "peak RSS MB"):
        assert lengths(result, figure) == {drain.OURS: 1}
    for figure in ("claim's backend us/row", "settle's backend us/row"):
        assert 1 < result[drain.OURS][figure][0] < 1000
    assert "share of the limit" in capsys.readouterr().out


def test_a_drain_that_leaves_rows_is_an_error(cluster: Cluster) -> None:
    server.seed(cluster, 20)
    with pytest.raises(AssertionError, match="10 of 20 rows"):
        drain.once(cluster, 20, SLOTS, options={"max_rows": 10})


def test_processes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(processes, "PROCESSES", (2,))
    monkeypatch.setattr(processes, "CLIENTS", (1, 2))
    result = processes.run(ROWS, 1, SLOTS)
    names = ["duerow, 2 processes", "pgbench, 1 client", "pgbench, 2 clients"]
    assert lengths(result, "rows/s") == dict.fromkeys(names, 1)
    told = capsys.readouterr().out
    assert "the limit: pgbench with" in told
    assert re.search(r"share of it, duerow, 2 processes: \d+\.\d\d$", told, re.MULTILINE)


def test_backlog(cluster: Cluster) -> None:
    result = backlog.run(ROWS, 1, SLOTS, backlog=3 * ROWS, rest=0.0)
    assert lengths(result, drain.PASSING) == {"no backlog": 1, "of 3,000 due": 1}
    assert server.left(cluster) == 2 * ROWS


def test_history(cluster: Cluster) -> None:
    """Half of it in today's partition, the rest in those of the 13 days before."""
    result = history.run(ROWS, 1, SLOTS, history=2_000)
    assert lengths(result, drain.PASSING) == {"no history": 1, "2,000 finished before": 1}
    with psycopg.connect(with_database(cluster.url, "history")) as db:
        days = db.execute(
            "select finished_at::date, count(*) from worker.jobs_finished"
            " where id <= 2000 group by 1 order by 1"
        ).fetchall()
        default = db.execute("select count(*) from only worker.jobs_finished_default").fetchone()
    counts = [count for _, count in days]
    assert counts[-1] == 1_000
    assert len(counts) == history.DAYS + 1
    assert max(counts[:-1]) - min(counts[:-1]) <= 1
    assert default == (0,)


def test_snapshot() -> None:
    result = snapshot.run(4_000, 8, SLOTS)
    assert result["points"] == [0, 200, 800, 4_000]
    for when in (*(f"at {point:,}" for point in result["points"]), "after release"):
        assert lengths(result, f"claim ms {when}") == {
            snapshot.FREE: 8,
            snapshot.HELD: 8,
            snapshot.UNKNOWING: snapshot.TURNS,
        }
    assert len(plot.lines({"snapshot": result})[snapshot.HELD]) == 4


def test_a_snapshot_that_is_not_held_is_an_error(cluster: Cluster) -> None:
    held = snapshot.Snapshot(cluster.url)
    held._connection.rollback()
    with pytest.raises(AssertionError, match="was held"):
        held.release()


def test_claimers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the command, with its file of figures."""
    monkeypatch.setattr(claimers, "COUNTS", (1, 3))
    file = tmp_path / "results" / "one.json"
    arguments = ["benchmarks", "claimers", "--rows", str(ROWS), "--rounds", "2", "--json", file]
    monkeypatch.setattr("sys.argv", list(map(str, arguments)))
    command.main()
    told = json.loads(file.read_text())
    assert lengths(told["results"]["claimers"], "rows/s") == {"1 claimer": 2, "3 claimers": 2}
    assert {"cores", "python", "postgres", "uvloop", "commit"} <= set(told["machine"])


def test_pgbench_settles_all(cluster: Cluster) -> None:
    server.seed(cluster, ROWS + 1)
    assert pgbench.drain(cluster, ROWS + 1, clients=2, batch=50) > 0
    assert server.left(cluster) == 0


def test_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "REPLICAS", (1,))
    monkeypatch.setattr(idle, "TOLD", 0.2)
    result = idle.run(0, 1, SLOTS, seconds=0.5, warm=0.0)
    [found] = report.contestants(result).values()
    for figure in ("client ms/s", "server ms/s", "transactions/s", "statements/s"):
        [value] = found[figure]
        assert 0 <= value < 10_000  # what it does while it starts counts, and a window may be long
    assert 10 < found["RSS MB of one"][0] < 200


def test_statements_are_counted_by_connection(cluster: Cluster) -> None:
    """Not those of others than workers."""
    over = threading.Event()
    sent: Counter[str] = Counter()

    def send(name: str) -> None:
        with psycopg.connect(cluster.url, autocommit=True, application_name=name) as db:
            while not over.wait(0.01):
                db.execute("select 1")
                sent[name] += 1

    threads = [threading.Thread(target=send, args=[name]) for name in ("duerow probe", "another")]
    for thread in threads:
        thread.start()
    try:
        found = idle._statements(cluster, 0.3)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert list(found) == ["duerow probe"]
    assert 1 <= found["duerow probe"] < sent["duerow probe"]  # some were sent outside the window


def test_defaults(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(defaults, "TUNED", {"warnings": {"log_level": "WARNING"}})
    monkeypatch.setattr(defaults, "IO_TUNED", {})
    result = defaults.run(ROWS, 1, SLOTS)
    assert lengths(result, "rows/s") == {
        "drain, default": 1,
        "drain, warnings": 1,
        "io, default": 1,
    }
    assert result["io, default"]["rows/s"][0] < 2_000  # 100 slots of 50 ms
    assert capsys.readouterr().out.count("the default reaches") == 2


def test_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUEROW_UVLOOP", "0")
    result = bare.run(ROWS, 1, SLOTS)
    found = lengths(result, bare.FIGURE)
    assert len(found) == 5
    assert set(found.values()) == {1}
    cost = {name: figures[bare.FIGURE][0] for name, figures in report.contestants(result).items()}
    assert cost["awaited in a loop, asyncio"] < cost["a worker's drain, asyncio"]


def test_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "BEGINNING", 0.2)
    result = steady.run(ROWS, 1, SLOTS, seconds=2)
    [found] = report.contestants(result).values()
    assert len(found["rows/s"]) == 1
    assert len(found["waiting rows"]) == 3
    assert max(found["waiting rows"]) <= ROWS
    for figure in ("producer us/row", "workers us/row", "server us/row"):
        assert 1 < found[figure][0] < 5_000


def test_every_scenario_has_sizes_that_the_command_knows() -> None:
    for name, scenario in command.SCENARIOS.items():
        assert (Path(command.__file__).parent / f"{name}.py").exists()
        assert set(scenario.quick) == set(scenario.full)
        assert {"slots", *scenario.quick} <= set(command.SIZES)


def test_what_is_drawn() -> None:
    contest = {
        "drain": {"ours": {"rows/s": [2.0, 9.0, 4.0]}, "other": {"rows/s": [5.0]}, "gone": {}},
        "latency": {"ours": {"p50 ms": [1.0]}},
    }
    assert plot.bars({"peers": contest}) == {"drain": {"other": 5.0, "ours": 4.0}}
    assert plot.bars({"drain": {}}) == {}
    assert plot.lines({}) == {}


def test_figures_are_told_with_their_spread_and_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    report.show({"rows": 5_000, "a": {"ms": [1.0, 3.0, 2.0]}, "b": {"ms": [4.0]}})
    title, _, first, second = (line.split() for line in capsys.readouterr().out.splitlines()[:4])
    assert title == ["rows:", "5,000"]
    assert first == ["ms", "a", "2", "1", "3", "3", "1.00"]
    assert second == ["b", "4", "4", "4", "1", "2.00"]
