"""The example `messages`, on a clock of its own: 1 s of the scenario takes 40 ms here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from examples.common.clock import Clock
from examples.common.stage import Stage
from examples.messages.api import Provider
from examples.messages.app import limits
from examples.messages.play import (
    Size,
    play,
    show_adapting,
    show_rates,
    show_speed,
    show_steps,
    show_throttle,
)
from examples.messages.scenes import Adapting, Change, Idle, Rate, Speed, Step, Throttle
from examples.messages.table import Attempts, Work
from tests.told import number, tables
from worker.url import DatabaseURL

CLOCK = Clock(0.04)
SLACK = 5.0  # real seconds, for a busy machine
SHORT = Size(
    idle=0.5,
    counts=(30,),
    backlog=200,
    steps=((80, 7, 40),),
    fleet=3,
    messages=40,
    # A process of the fleet may stand still for two seconds, and then make the calls that were due
    # meanwhile; four of them that each kept the limit for themselves would pass it all the same.
    away=100,
    heard=3.0,
    replicas=(4,),
    limit=30,
    margin=20,
    seconds=4.0,
)
# Runs by the last fleet, of four, of rows that are not those seeded for it.
OF_OTHER_SEEDS = """
select count(*) from worker.attempts a
 where a.source = 'conversations'
   and a.worker in (select id from worker.workers order by started_at desc limit 4)
   and not exists (select from example_messages.conversations c where c.id::text = a.row_key)
"""


@pytest.mark.process
def test_the_whole_of_it(
    db_url: str, pg: psycopg.Connection[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(DatabaseURL.parse(db_url), pg, CLOCK)
    was_true = play(stage, SHORT, used=0.1)  # a third, less what a machine stands still
    told = capsys.readouterr().out
    assert was_true, told
    speeds, changes, steps, throttle, rates = tables(told)
    for row in speeds[1:]:
        least = number(row["ideal"])
        assert 0 <= CLOCK.real(number(row["here"]) - least) <= SLACK, row
    assert [row["why"] for row in changes].count("throttled") == 1
    assert [int(row["slots"]) for row in steps] == [7]
    assert {row["of the fleet"]: row["here"] for row in throttle}["sent"] == "80 of 80"
    assert [int(row["refused"]) for row in rates] == [0]

    # Asked without the example's own code.
    most = pg.execute(
        "select max(attempt) from worker.attempts where source = 'conversations'"
    ).fetchone()
    assert most == (1,)
    strangers = pg.execute(OF_OTHER_SEEDS).fetchone()
    assert strangers == (0,), "the second that is counted began with what an earlier fleet left"


def test_limits_are_read() -> None:
    assert limits("") == {}
    assert limits("north=40,south=2.5") == {"north": 40, "south": 2.5}


def test_a_provider_counts_for_itself() -> None:
    provider = Provider()
    provider.limit = 3
    assert [provider.arrives() is None for _ in range(5)] == [True, True, True, False, False]
    counts = provider.counts
    assert (counts.busiest, counts.at_once, counts.over, len(counts.refused)) == (5, 3, 2, 2)
    provider.leaves()
    provider.forget()
    assert provider.counts.at == []


def test_a_provider_throttles_from_a_call_on() -> None:
    provider = Provider()
    provider.closes = 3, 60.0
    assert [provider.arrives() is None for _ in range(4)] == [True, True, False, False]
    assert (provider.counts.over, len(provider.counts.refused)) == (0, 2)


# -- what is said when it is not true -------------------------------------------------------------

IDLE = Idle(3.0, 12, Work(24, 0, 0), 0)
SPEEDS = [Speed(50, 26.0, 25.0, 310.0, 2)]
DONE = {"done": Attempts(400, 1)}
CHANGES = [
    Change(1.0, 5, 2, "backlog"),
    Change(2.0, 8, 5, "backlog"),
    Change(3.0, 11, 8, "backlog"),
    Change(4.0, 5, 11, "throttled"),
    Change(5.0, 8, 5, "backlog"),
    Change(6.0, 5, 8, "idle"),
]
ADAPTING = Adapting(400, 0.0, 3.9, CHANGES, DONE)
STEP = Step(80, 7, 40, 7, 10)
THROTTLE = Throttle(4, 20.0, 3, 0.01, 0, 0.02, 50, 200, 200, {"done": Attempts(200, 1)}, 28)
RATE = Rate(6, 40, 8.0, 312, 40, 0, 40)


def test_all_is_fine() -> None:
    assert said() == []


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"idle": {"calls": 1}}, "with nothing due something was done"),
        ({"idle": {"work": Work(24, 5, 0)}}, "with nothing due something was done"),
        ({"idle": {"work": Work(60, 0, 0)}}, "60 scans for 12 looks"),
        ({"idle": {"looks": 0, "work": Work(0, 0, 0)}}, "the idle worker has not asked"),
        ({"speed": {"seconds": 24.0}}, "50 messages were sent faster than can be"),
        ({"speed": {"seconds": 320.0, "runs": 2}}, "50 messages took longer than the original"),
        ({"adapting": {"changes": CHANGES[2:]}}, "the slots did not rise with the backlog"),
        (
            {"adapting": {"changes": [*CHANGES[:3], *CHANGES[4:]]}},
            "a throttle did not halve the slots",
        ),
        ({"adapting": {"changes": [*CHANGES[:4], CHANGES[5]]}}, "the slots did not recover"),
        (
            {"adapting": {"changes": CHANGES[:5]}},
            "the slots did not go down when nothing was due",
        ),
        ({"adapting": {"attempts": {"done": Attempts(4, 2)}}}, "a throttle has cost an attempt"),
        ({"step": {"at_once": 8}}, "80 due: 8 at once, not 7"),
        ({"step": {"claimed": 41}}, "80 due: a claim of 41"),
        ({"throttle": {"parked": 2}}, "2 calls came while the provider was to be left alone"),
        ({"throttle": {"attempts": {"done": Attempts(9, 2)}}}, "a throttle has cost an attempt"),
        ({"throttle": {"others": 0}}, "the other provider waited too"),
        ({"throttle": {"sent": 199}}, "not all was sent: 199 of 200"),
        ({"throttle": {"connections": 61}}, "61 connections"),
        ({"rate": {"over": 1}}, "6 replicas passed the limit: 40 in a second"),
        ({"rate": {"busiest": 41}}, "6 replicas passed the limit: 41 in a second"),
        ({"rate": {"calls": 300}}, "6 replicas used 93.8% of the limit"),
        ({"rate": {"connections": 61}}, "61 connections"),
    ],
)
def test_what_is_not_true_is_said(wrong: dict[str, dict[str, Any]], expected: str) -> None:
    assert said(**wrong) == [expected]


def said(**wrong: dict[str, Any]) -> Sequence[str]:
    def of(name: str, fine: Any) -> Any:
        return dataclasses.replace(fine, **wrong.get(name, {}))

    return [
        *show_speed(of("idle", IDLE), [of("speed", SPEEDS[0])]),
        *show_adapting(of("adapting", ADAPTING)),
        *show_steps([of("step", STEP)]),
        *show_throttle(of("throttle", THROTTLE)),
        *show_rates([of("rate", RATE)]),
    ]
