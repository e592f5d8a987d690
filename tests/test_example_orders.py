"""The example `orders`, on a clock of its own: 1 s of the scenario takes 10 ms here."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import psycopg
import pytest

from examples.common.clock import Clock
from examples.orders.api import seconds
from examples.orders.original import all_clients, in_batches
from examples.orders.play import _answers, _clients, _outage, _runs, _samples, most
from examples.orders.scenes import SIZES, Answers, Client, Ended, Outage, Runs, Sample
from examples.orders.table import Orders, Span
from examples.orders.watch import Watch
from tests.cli import REPOSITORY, run
from tests.examples import played
from tests.told import number, tables

SCALE = 0.01


@pytest.mark.process
def test_the_whole_of_it(db_url: str, pg: psycopg.Connection) -> None:
    ended = played("orders", "--scale", str(SCALE), "--database-url", db_url)
    told = ended.stdout
    assert ended.returncode == 0, told + ended.stderr
    assert told.splitlines()[-1] == "all of it was true"
    assert "scale: 1 s -> 10 ms" in told

    # Fifty in one call, each with an answer of its own.
    assert "numbers in each call: [50]\n1 dead, 48 done, 1 retry\nexit code 7" in told

    # The first run ends in time and says what is left; whoever comes next goes on from there.
    runs, clients, samples = tables(told)
    first, by_hand, *others = runs
    assert others
    assert (by_hand["done"], by_hand["exit code"]) == ("500", "0")
    left = sum(SIZES) - 500 - int(first["done"])
    assert 0 < left <= int(first["left"])  # the other may still have been at it
    for one in others:
        left -= int(one["done"])
        assert (one["left"], one["exit code"]) == (str(left), "0")
    assert left == 0
    assert f"the carrier counts: {sum(SIZES)} of {sum(SIZES)}\ntracked twice: 0;" in told

    # Nobody waits for the large ones.
    assert [int(row["orders"]) for row in clients] == list(SIZES)
    assert clients[0]["after, min"] == "next run"
    assert all(int(row["here"]) < 3000 for row in clients[-10:])
    assert all(int(row["first come"]) >= 10_000 for row in clients)

    # What somebody sees who watches.
    assert int(samples[0]["backlog"]) > int(samples[-1]["backlog"]) > 0
    early = [row for row in samples if number(row["run, min"]) < 20]
    assert early
    assert not any("run_time" in row["alerts"] for row in early)
    assert re.search(r"^alert run_time: since 2\d\.\d min$", told, re.MULTILINE)
    assert re.search(r"^alert error_rate: .* the carrier answers 503$", told, re.MULTILINE)
    assert "alert backlog: backlog 200, backlog_before 200" in told

    # The tables tell the same, asked without the example's own code.
    checked = run("tables", "check", "orders", "--database-url", db_url, cwd=REPOSITORY)
    assert checked.code == 0, checked.out
    assert pg.execute(
        "select count(*) from example_orders.orders where state = 'delivered'"
    ).fetchone() == (sum(SIZES),)


# -- the alerts -----------------------------------------------------------------------------------


@pytest.fixture
def orders(pg: psycopg.Connection) -> Orders:
    pg.autocommit = True
    found = Orders(pg)
    found.create()
    return found


def minutes(count: float) -> dt.timedelta:
    return dt.timedelta(minutes=count)


def attempts(pg: psycopg.Connection[Any], outcome: str, count: int, ago: float) -> None:
    pg.execute(
        "insert into worker.attempts (source, row_key, queue, kind, attempt, token, outcome,"
        " ended_at) select 'orders', n::text, 'orders', 'orders', 1, 1, %s, now() - %s"
        " from generate_series(1, %s) n",
        [outcome, minutes(ago), count],
    )


@pytest.mark.parametrize(("age", "fires"), [(19, False), (21, True)])
def test_a_long_run(pg: psycopg.Connection, orders: Orders, age: int, fires: bool) -> None:
    pg.execute(
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease,"
        " started_at) values ('one', '', 1, '', '{orders}', '{orders}', 1, '30 s', now() - %s)",
        [minutes(age)],
    )
    assert ("run_time" in Watch(pg, Clock()).alerts()) is fires
    pg.execute("update worker.workers set stopped_at = now()")
    assert Watch(pg, Clock()).alerts() == {}


@pytest.mark.parametrize(
    ("done", "errors", "ago", "fires"),
    [(90, 10, 1, False), (89, 11, 1, True), (89, 11, 16, False), (10, 20, 1, False)],
)
def test_many_errors(
    pg: psycopg.Connection, orders: Orders, done: int, errors: int, ago: float, fires: bool
) -> None:
    attempts(pg, "done", done, ago)
    attempts(pg, "retry", errors, ago)
    attempts(pg, "released", 1000, ago)
    assert ("error_rate" in Watch(pg, Clock()).alerts()) is fires


def test_a_backlog_that_does_not_shrink(pg: psycopg.Connection, orders: Orders) -> None:
    watch = Watch(pg, Clock())
    orders.seed([10], ago=14 * 60)
    assert watch.alerts() == {}  # it is not as old as that
    orders.seed([10], ago=16 * 60)
    assert watch.alerts() == {"backlog": {"backlog": 10, "backlog_before": 10}}
    checked = "update example_orders.orders set checked_at = now(), checked_for = next_check_at"
    pg.execute(f"{checked}, next_check_at = null where id <= 3".encode())
    assert watch.alerts() == {}  # 10 are 7
    pg.execute(
        "insert into example_orders.orders (id, client_id, tracking_number, next_check_at)"
        " select n, 1, n::text, now() - interval '1 minute' from generate_series(11, 13) n"
    )
    assert watch.alerts() == {"backlog": {"backlog": 10, "backlog_before": 10}}
    pg.execute(f"{checked} where id = 4".encode())  # asked about, and to be asked again
    assert watch.alerts() == {"backlog": {"backlog": 10, "backlog_before": 10}}
    pg.execute(
        "update example_orders.orders set duerow_state = 'dead', duerow_held_for = next_check_at,"
        " duerow_retry_at = 'infinity' where id = 4"
    )
    assert watch.alerts() == {}  # given up: no backlog any more


# -- what would not be true is said ---------------------------------------------------------------

NOW = dt.datetime.now(dt.UTC)


def one_run(
    left: int, settled: int = 500, code: int = 0, late: float = -0.1, over: float = -0.1
) -> Ended:
    said = {"settled": settled, "failed": 0, "released": 0, "lost": 0, "left": left}
    return Ended(code, said, Span(NOW, NOW, 1.0, 1.0, settled), late, over)


def all_runs(*runs: Ended, **other: Any) -> list[str]:
    found = {"overlapped": True, "tracked": 1000, "twice": 0, "double_starts": 0, **other}
    return list(_runs(Runs(1000, [], list(runs), one_run(0), samples=[], calls=[50], **found)))


def test_what_is_wrong_with_runs_is_said() -> None:
    good = (one_run(300), one_run(0))
    assert all_runs(*good) == []
    assert all_runs(one_run(0)) == ["the first run left nothing to go on with"]
    assert all_runs(one_run(300), one_run(7)) == ["7 orders are left"]
    assert all_runs(one_run(300, code=9), one_run(0)) == [
        "a run in which nothing failed has not ended with 0"
    ]
    assert all_runs(one_run(300, late=5.0), one_run(0)) == ["a run has begun calls after its time"]
    assert all_runs(one_run(300, over=5.0), one_run(0)) == ["a run has taken longer than its limit"]
    assert all_runs(*good, twice=2) == ["2 orders were tracked twice"]
    assert all_runs(*good, overlapped=False) == ["the two runs did not overlap"]
    assert all_runs(*good, tracked=999) == ["1 orders were not tracked"]


def test_a_client_that_waits_is_said() -> None:
    clients = [Client(size, 1.0, most(size), 12_000, size, 1, 1) for size in SIZES]
    assert list(_clients(clients)) == []
    clients[-1] = Client(1, 1.0, most(1) + 1, 12_000, 1, 1, 1)
    assert list(_clients(clients)) == ["a client of 1 orders has waited longer than its share"]
    assert most(1) < sum(SIZES) / 7


def test_a_batch_that_is_not_one_is_said() -> None:
    good = {"done": 48, "retry": 1, "dead": 1}
    assert list(_answers(Answers([50], good, one_run(0, code=7)))) == []
    assert list(_answers(Answers([25, 25], good, one_run(0, code=7)))) == [
        "fifty orders were not one call"
    ]
    assert list(_answers(Answers([50], {"done": 50}, one_run(0, code=7)))) == [
        "the fifty were not answered one by one"
    ]


def test_alerts_that_come_wrong_are_said() -> None:
    numbers = {"run_minutes": 1, "done": 1, "error_rate": 0, "backlog": 1}

    def said(**fired: float) -> list[str]:
        samples = [Sample(at, numbers, [alert]) for alert, at in fired.items()]
        runs = Runs(1, [], [], one_run(0), True, samples, [], 1, 0, 0, fired)
        return list(_samples(runs, 0))

    assert said(run_time=1210.0) == []
    assert said() == said(run_time=600.0) == ["the alert of a long run did not come when it should"]
    assert said(run_time=1210.0, backlog=901.0) == ["an alert came for nothing: backlog"]
    assert said(run_time=1210.0, backlog=60.0) == []  # before the run nothing had shrunk

    told = {"error_rate": {"errors": 1}, "backlog": {"backlog": 200}}
    both = [one_run(0, 200, 7), one_run(0, 200)]
    assert list(_outage(Outage(200, list(told), told, [], both))) == []
    assert list(_outage(Outage(200, [], told, ["backlog"], both))) == [
        "alerts while the carrier was away: none",
        "alerts that stay: backlog",
    ]


# -- what is compared with ------------------------------------------------------------------------


def test_the_original() -> None:
    assert seconds(1) == 1.28  # so that 1,171 orders are tracked before it is killed
    assert all_clients([10, 0, 5], 1.28) == [1, 0, 1]
    assert all_clients([401, 1], 1.28) == [3, 1]
    assert all_clients([200] * 7, 1.28) == [1] * 5 + [2] * 2
    assert in_batches([100] * 5 + [1], 1.28) == [1] * 6
    assert in_batches([300] * 5, 1.28) == [2] * 5
