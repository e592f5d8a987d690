"""Rows that wait for their time."""

from __future__ import annotations

import asyncio
import time

from tests.facts import until
from worker.row import Row
from worker.timetable import LATE, Timetable


def row(key: int, seconds: float) -> Row:
    made = Row("jobs", 1, key, "default", "work", 0, 0.0, 1, 1, None, 0, None, None, "{}", 0.0, 0.0)
    made.not_before = time.monotonic() + seconds
    return made


async def test_it_wakes_for_the_first_and_gives_rows_in_order() -> None:
    started: list[tuple[int, float]] = []

    def wake() -> None:
        for one in table.due(9):
            assert one.not_before is not None
            started.append((one.key, time.monotonic() - one.not_before))

    table = Timetable(wake)
    for key, seconds in ((3, 0.6), (1, 0.4), (2, 0.5)):
        table.append(row(key, seconds))
    wake()
    assert started == []
    await until(lambda: len(started) == 3)
    assert [key for key, _ in started] == [1, 2, 3]
    assert all(late >= 0 for _, late in started), "none before its time"


async def test_one_that_has_missed_its_turn_is_late() -> None:
    table = Timetable(lambda: None)
    table.append(row(1, -LATE - 0.01))
    in_time = row(2, 0.0)
    in_time.not_after = time.monotonic() + 60
    table.append(in_time)
    assert [one.key for one in table.late()] == [1]
    assert [one.key for one in table.due(9)] == [2]


async def test_it_asks_again_where_no_slot_was_free() -> None:
    woken = asyncio.Event()
    table = Timetable(woken.set)
    table.append(row(1, -0.01))
    assert table.due(0) == []
    await asyncio.wait_for(woken.wait(), 5)
    assert [one.key for one in table.late()] == [1]


async def test_rows_can_be_taken_out() -> None:
    table = Timetable(lambda: None)
    one, other = row(1, 5), row(2, 6)
    table.append(one)
    table.append(other)
    table.remove(one)
    assert list(table) == [other]
    assert table.clear() == [other]
    assert not table
