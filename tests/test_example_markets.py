"""The example `markets`, on a clock of its own: 1 s of the scenario takes 50 ms here."""

from __future__ import annotations

import psycopg
import pytest

from examples.markets.api import seconds
from examples.markets.play import _hang, _kill, _speed
from examples.markets.pool import PoolUse
from examples.markets.scenes import Hang, Kill, Speed
from tests.cli import REPOSITORY, run
from tests.examples import played
from tests.told import number, tables

SCALE = 0.05
SLACK = 4.5  # real seconds, for a busy machine: a market's timeout and its retry
THREAD_GRACE = 1.5  # real seconds that a blocked thread is given to end


@pytest.mark.process
def test_the_whole_of_it(db_url: str, pg: psycopg.Connection) -> None:
    ended = played("markets", "--scale", str(SCALE), "--database-url", db_url)
    told = ended.stdout
    assert ended.returncode == 0, told + ended.stderr
    assert told.splitlines()[-1] == "all of it was true"
    assert "scale: 1 s -> 50 ms" in told

    speeds, hangs = tables(told)

    # Never faster than the slots can be, and slower by what this machine takes.
    assert [(row["handler"], row["slots"]) for row in speeds] == [
        ("async def", "3"), ("def", "3"), ("async def", "20")
    ]  # fmt: skip
    for row in speeds:
        assert number(row["ideal"]) <= number(row["here"]) < number(row["one by one"]), row
        assert int(row["in use at most"]) <= int(row["open at most"]) <= int(row["pool"]), row
        assert int(row["/healthz says"]) <= int(row["pool"]), row
        assert number(row["pool use"]) < 50, row

    # A market that hangs costs its slot for its timeout.
    assert [row["handler"] for row in hangs] == ["async def", "def"]
    for row in hangs:
        grace = THREAD_GRACE if row["handler"] == "def" else 0
        assert number(row["its slot is free"]) <= grace + SLACK, row
        others = number(row["the others"].removeprefix("19 in "))
        assert 0 <= (others - number(row["ideal"])) * SCALE <= grace + SLACK, row

    for way in ("async def", "def"):
        assert (
            f"{way}: 3 predictions written, worker killed, 0 there; "
            "run again: 3 there (attempts: crashed, done)"
        ) in told
        assert f"{way}: before the kill /healthz said: 1 of 1 sessions in use" in told

    # Adopted as `worker tables add` would have, and the tables tell the same, asked without the
    # example's own code.
    checked = run("tables", "check", "markets", "--database-url", db_url, cwd=REPOSITORY)
    assert checked.code == 0, checked.out
    assert pg.execute(
        "select market_id, count(*), sum(probability) from example_markets.predictions group by 1"
    ).fetchall() == [(1, 3, 1)]
    assert pg.execute(
        "select count(*) from worker.workers where stopped_at is null and gone_at is null"
    ).fetchone() == (0,)


# -- what would not be true is said ---------------------------------------------------------------

POOL = PoolUse(3, 100, 3, 3, 0.5, 3)
TOO_MANY = PoolUse(3, 100, 4, 3, 0.5, 3)
TOLD_TOO_MANY = PoolUse(3, 100, 3, 3, 0.5, 4)


def test_a_pool_that_is_passed_is_said() -> None:
    assert list(_speed([("def", Speed(3, 90.0, 88.5, 251.0, 0, POOL))])) == []
    [said] = _speed([("def", Speed(3, 90.0, 88.5, 251.0, 0, TOO_MANY))])
    assert said == "def: more connections were open than the pool may have"
    [said] = _speed([("def", Speed(3, 90.0, 88.5, 251.0, 0, TOLD_TOO_MANY))])
    assert said == "def: more connections were open than the pool may have"
    [said] = _hang([("def", Hang(0.1, "retry", "HandlerTimeout", 93.0, 92.5, 19, TOO_MANY))])
    assert said == "def: more connections were open than the pool may have"


def test_missing_predictions_are_said() -> None:
    [said] = _speed([("def", Speed(3, 90.0, 88.5, 251.0, 2, POOL))])
    assert said == "def: 2 markets have not got their 3 predictions"


def test_a_market_that_ends_before_its_timeout_is_said() -> None:
    assert list(_hang([("def", Hang(0.1, "retry", "HandlerTimeout", 93.0, 92.5, 19, POOL))])) == []
    [said] = _hang([("def", Hang(0.1, "done", None, 93.0, 92.5, 19, POOL))])
    assert said.startswith("def: the market that hangs ended otherwise")


def test_half_a_transaction_is_said() -> None:
    assert list(_kill("def", Kill(3, 0, 3, ("crashed", "done"), True, (1, 1)))) == []
    for found in (
        Kill(
            0, 0, 3, ("crashed", "done"), True, (1, 1)
        ),  # killed too early: it would prove nothing
        Kill(3, 3, 6, ("crashed", "done"), True, (1, 1)),
        Kill(3, 0, 3, ("crashed", "done"), False, (1, 1)),
        Kill(3, 0, 0, ("crashed", "done"), True, (1, 1)),
        Kill(3, 0, 3, ("crashed", "done"), True, (0, 1)),
    ):
        assert list(_kill("def", found))


def test_markets_take_10_to_15_seconds() -> None:
    found = [seconds(market) for market in range(1, 21)]
    assert min(found) == 10
    assert max(found) == 15
