"""Rows on their way to a slot: one by one, and gathered into lots."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.rows import row as a_row
from worker.batching import Batching
from worker.buffer import Buffer
from worker.row import Row

KINDS = {
    "plain": None,
    "track": Batching(3),
    "tenants": Batching(3, by_tenant=True),
    "waits": Batching(3, wait=5.0),
    "singly": Batching(3, then="singly"),
}
keys = itertools.count(1)


def row(kind: str, tenant: str | None = None, attempt: int = 1) -> Row:
    return a_row(kind=kind, key=next(keys), tenant=tenant, attempt=attempt)


def filled(*kinds: str) -> Buffer:
    buffer = Buffer(KINDS.get)
    for kind in kinds:
        buffer.append(row(kind))
    return buffer


def started(buffer: Buffer, *, more: bool = False, hurry: bool = False) -> list[int]:
    """How many rows each call takes that can start."""
    sizes = []
    while buffer.ready(more=more, hurry=hurry):
        sizes.append(len(buffer.take()))
    return sizes


def test_single_rows_leave_in_the_order_in_which_they_came() -> None:
    buffer = Buffer(KINDS.get)
    rows = [row("plain") for _ in range(3)]
    for one in rows:
        buffer.append(one)
    assert (len(buffer), buffer.slots, list(buffer)) == (3, 3, rows)
    assert [buffer.take() for _ in rows] == [[one] for one in rows]
    assert not buffer.ready(more=False)
    assert (len(buffer), buffer.slots) == (0, 0)


def test_lots_are_full_where_they_can_be() -> None:
    buffer = filled(*["track"] * 7)
    assert buffer.slots == pytest.approx(7 / 3)
    assert buffer.queue
    assert started(buffer) == [3, 3, 1]


def test_one_that_is_not_full_waits_while_a_claim_may_bring_more() -> None:
    buffer = filled("waits", "waits")
    assert started(buffer, more=True) == []
    assert 0 < (buffer.waits_for() or 0) <= 5
    assert len(buffer) == len(list(buffer)) == 2
    assert started(buffer, more=False) == [2]
    assert buffer.waits_for() is None


def test_without_a_wait_it_does_not() -> None:
    assert started(filled("track", "track"), more=True) == [2]


def test_nor_longer_than_its_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = filled("waits", "waits", "plain")
    now = time.monotonic()
    assert started(buffer, more=True) == [1]
    monkeypatch.setattr(time, "monotonic", lambda: now + 6)
    assert started(buffer, more=True) == [2]


def test_its_wait_is_over_though_single_rows_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = filled("waits", *["plain"] * 5)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 6)
    assert started(buffer, more=True) == [1] * 6
    assert len(buffer) == 0


def test_what_keeps_coming_is_waited_for_unless_somebody_waits_for_the_end() -> None:
    buffer = filled("waits")
    assert started(buffer) == [1]
    buffer.append(row("waits"))
    assert started(buffer) == []
    assert started(buffer, hurry=True) == [1]
    buffer.append(row("waits"))
    buffer.append(row("waits"))
    buffer.append(row("waits"))
    assert started(buffer) == [3]


def test_a_lot_that_waits_for_a_slot_is_still_filled_up() -> None:
    buffer = filled("track", "track")
    assert buffer.ready(more=False)
    buffer.append(row("track"))
    buffer.append(row("track"))
    assert started(buffer) == [3, 1]


def test_lots_of_one_tenant() -> None:
    buffer = Buffer(KINDS.get)
    for tenant in "abcaba":
        buffer.append(row("tenants", tenant))
    assert buffer.slots == 3
    lots = []
    while buffer.ready(more=False):
        lots.append([one.tenant for one in buffer.take()])
    assert sorted(lots) == [["a", "a", "a"], ["b", "b"], ["c"]]


def test_a_row_that_has_failed_runs_singly() -> None:
    buffer = Buffer(KINDS.get)
    for attempt in (1, 2, 1, 3):
        buffer.append(row("singly", attempt=attempt))
    assert sorted(started(buffer)) == [1, 1, 2]


def test_everything_can_be_taken_out() -> None:
    buffer = filled("plain", "track", "waits", "tenants", "track")
    assert len(buffer.clear()) == 5
    assert (len(buffer), list(buffer), buffer.slots) == (0, [], 0)
    assert not buffer.ready(more=False)


def test_and_some_of_it() -> None:
    buffer = filled("plain", "track", "waits", "track", "plain")
    assert buffer.ready(more=False)
    for one in [one for one in buffer if one.kind == "track"]:
        buffer.remove(one)
    assert sorted(one.kind for one in buffer) == ["plain", "plain", "waits"]
    buffer.remove(next(iter(buffer)))
    assert (len(buffer), buffer.slots) == (2, pytest.approx(4 / 3))
    assert started(buffer) == [1, 1]
    with pytest.raises(ValueError, match="not in"):
        buffer.remove(row("plain"))
