"""The donations example, played by real workers. A second of the scenario takes 100 ms here; the
lease of a worker, which Duerow needs for itself, is not shortened."""

from __future__ import annotations

import dataclasses
import os
import resource
from typing import Any

import psycopg
import pytest

from examples.common.clock import Clock
from examples.common.crew import Crew
from examples.donations.scenes import MEMORY, REPLICAS, Scenes, Trouble, peak_megabytes, unrecovered
from examples.donations.table import Count, Recovery, Table, Wait
from worker.url import DatabaseURL

CLOCK = Clock(0.1)  # a shorter one is over before somebody who looks away looks again


@pytest.mark.process
def test_donations_are_charged_once_whatever_happens(
    db_url: str, pg: psycopg.Connection[Any]
) -> None:
    table = Table(pg)
    assert table.create().startswith("worker tables add example_donations.donations ")
    url = DatabaseURL.parse(db_url)
    with Crew(url, CLOCK, "examples.donations.api") as crew:
        scenes = Scenes(crew, table, CLOCK, url)
        scenes.start()
        first, second = scenes.speed(100)
        assert (first.once, second.once, second.new_keys) == (100, 100, 100)
        assert first.seconds < first.was / 3  # Duerow's own time counts, too

        trouble = scenes.trouble(1000)
        assert trouble.problems == []
        assert trouble.settled == Count(980, 20, 1000)
        assert trouble.recovery.rows > 50
        assert trouble.outcomes["done"] == 980
        assert {wait.attempt for wait in trouble.waits if wait.outcome == "retry"} >= {1}

        assert scenes.by_hand() == (20, 20)

        memory = scenes.memory(10_000, until=0.1)
        assert len(memory.peaks) == REPLICAS
        assert 20 < min(memory.peaks) <= max(memory.peaks) <= MEMORY
        pids = [member.pid for member in crew.members if member.alive]
        assert len(pids) == REPLICAS
        crew.stop_all()

    # Asked without the example's own code.
    done = pg.execute(
        "select count(*) from worker.attempts where source = 'donations' and outcome = 'done'"
        " group by row_key having count(*) > 2"  # two months at most
    ).fetchall()
    assert done == []


def test_a_peak_is_told_in_megabytes() -> None:

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert peak_megabytes(os.getpid()) == pytest.approx(peak, rel=0.05)


# -- what is said when it is not true -------------------------------------------------------------

FINE = Trouble(
    donations=100,
    declined=2,
    settled=Count(98, 2, 100),
    once=98,
    declined_charged=0,
    right_dead=True,
    recovery=Recovery(10, 9, 1),
    faults={"503": 10},
    replays=3,
    conflicts=0,
    waits=[
        Wait("Unavailable", 1, "retry", 9, 2.0, 2.0),
        Wait("ConnectionResetError", 2, "retry", 1, 4.0, 4.01),
        Wait("RateLimited", 5, "retry", 1, 8.0, 8.0),
        Wait("Declined", 1, "dead", 2, None, None),
    ],
    outcomes={"done": 98},
    killed_with=5,
    stop_code=0,
    double_starts=0,
    seconds=10.0,
)


def test_all_is_fine() -> None:
    assert FINE.problems == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"once": 97}, "1 donations were not charged exactly once"),
        ({"declined_charged": 1}, "1 were charged although declined"),
        ({"right_dead": False}, "the dead rows are not those whose card is declined"),
        ({"recovery": Recovery(10, 8, 1)}, "transient failures were not recovered"),
        ({"recovery": Recovery(0, 0, 0)}, "transient failures were not recovered"),
        (
            {"waits": [Wait("Unavailable", 1, "retry", 9, 2.0, 3.0)]},
            "a retry did not come after 2, 4 or 8 s",
        ),
        (
            {"waits": [Wait("Declined", 1, "retry", 1, 2.0, 2.0)]},
            "a permanent error was tried again",
        ),
        (
            {"waits": [Wait("Unavailable", 8, "dead", 1, None, None)]},
            "a row died of another error than its card",
        ),
        ({"killed_with": 0}, "the killed worker held nothing"),
        ({"stop_code": 1}, "the stopped worker ended with 1"),
        ({"conflicts": 1}, "an idempotency key was used for two charges"),
        ({"double_starts": 1}, "a row was in two hands at once"),
        ({"replays": 0}, "no answer of the API was lost"),
    ],
)
def test_what_is_not_true_is_said(wrong: dict[str, Any], said: str) -> None:
    assert dataclasses.replace(FINE, **wrong).problems == [said]


def test_what_was_recovered() -> None:
    assert unrecovered(Recovery(10, 9, 1)) == 0
    assert unrecovered(Recovery(10, 8, 1)) == 1
