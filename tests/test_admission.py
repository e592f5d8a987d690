"""What gates let through, and when: pure."""

from __future__ import annotations

import random

import pytest

from worker.flow.admission import HORIZON, LEAD, Admission
from worker.flow.gate import Gate
from worker.scope import EACH, Scope


def gate(id_: int = 1, scope: Scope | None = None, **fields: object) -> Gate:
    return Gate(id_, scope or Scope(kind="send"), **fields)  # type: ignore[arg-type]


def admission(*gates: Gate, **held: int) -> Admission:
    return Admission(gates, {int(id_[1:]): count for id_, count in held.items()})


def room(of: Admission, most: int = 100, tenant: str | None = None) -> int:
    return of.room("default", "send", tenant, most)


def admit(of: Admission, count: int, tenant: str | None = None) -> list[float]:
    return [of.admit("default", "send", tenant) for _ in range(count)]


def test_what_is_paused_throttled_or_open_lets_nothing_through() -> None:
    assert room(admission(gate(paused=True))) == 0
    assert room(admission(gate(blocked_for=3.0))) == 0
    assert room(admission(gate(trips=True, open_for=3.0))) == 0


def test_it_tells_when_to_ask_again() -> None:
    for closed, seconds in (
        (gate(paused=True), None),
        (gate(blocked_for=3.0), 3.0),
        (gate(trips=True, open_for=2.0), 2.0),
    ):
        asked = admission(closed)
        room(asked)
        assert asked.next_in == seconds


def test_a_throttle_that_is_over_lets_all_through() -> None:
    assert room(admission(gate(blocked_for=-0.1))) == 100


def test_one_row_tries_an_open_breaker() -> None:
    asked = admission(gate(trips=True, open_for=-0.1))
    assert room(asked) == 1
    admit(asked, 1)
    assert room(asked) == 0
    [passed] = asked.changed()
    assert passed.probe
    assert room(admission(gate(trips=True, open_for=-0.1, probing=True))) == 0


def test_concurrency_is_what_nobody_holds() -> None:
    asked = admission(gate(concurrency=5, in_use=3))
    assert room(asked) == 2
    admit(asked, 2)
    assert room(asked) == 0
    assert asked.next_in is not None
    assert asked.share(asked.gates[0]) == 2


def test_a_share_that_was_written_too_high_or_too_low_is_put_right() -> None:
    """The worker was down for 3 and holds 1: four of five are free, with two of another's."""
    asked = admission(gate(concurrency=5, in_use=5, share=3), _1=1)
    assert room(asked) == 2
    admit(asked, 2)
    assert asked.share(asked.gates[0]) == 3
    [passed] = asked.changed()
    assert passed.gate.in_use + asked.taken(passed.gate) == 5


def test_a_limit_that_is_lower_than_what_runs_lets_nothing_through() -> None:
    assert room(admission(gate(concurrency=2, in_use=5))) == 0


def test_a_full_bucket_gives_its_burst_and_what_comes_within_the_horizon() -> None:
    asked = admission(gate(rate=40, burst=10))
    assert room(asked) == 10 + int(40 * (HORIZON - LEAD))
    starts = admit(asked, 29)
    assert set(starts[:10]) == {0.0, LEAD}, "at once, those that may be late"
    assert starts == sorted(starts)
    assert starts[10:] == pytest.approx([(n + 1) / 40 for n in range(19)])
    assert room(asked) <= 1
    assert asked.next_in is not None
    assert 0 < asked.next_in < HORIZON


def test_a_token_that_lay_unused_is_not_had_at_any_time() -> None:
    """A claim that is committed late would start its row among those that were given the next."""
    assert admit(admission(gate(rate=29, burst=1, full_in=-5.0)), 2) == pytest.approx(
        [LEAD, LEAD + 1 / 29]
    )
    assert admit(admission(gate(rate=5, burst=1, full_in=-5.0)), 1) == [0.0], "in no hurry"


@pytest.mark.parametrize(
    ("rate", "burst", "seconds"), [(29, 1, 0.02), (10, 1, 0.05), (50, 10, 0.1), (1 / 60, 1, 0.1)]
)
def test_a_row_may_be_late_by_half_of_what_would_show(
    rate: float, burst: int, seconds: float
) -> None:
    asked = admission(gate(rate=rate, burst=burst))
    assert asked.patience("default", "send", None) == pytest.approx(seconds)


def test_an_empty_bucket_gives_one_after_the_other() -> None:
    asked = admission(gate(rate=40, burst=10, full_in=10 / 40))
    assert room(asked) == 20
    assert admit(asked, 20) == pytest.approx([(n + 1) / 40 for n in range(20)])


def test_a_slow_rate_says_when_its_next_token_comes() -> None:
    asked = admission(gate(rate=1 / 60, burst=1, full_in=30.0))
    assert room(asked) == 0
    assert asked.next_in == pytest.approx(30.0 - HORIZON)


@pytest.mark.parametrize("seed", range(20))
def test_no_second_has_more_than_the_rate_and_the_burst(seed: int) -> None:
    """Workers ask at odd moments, take odd numbers, and rest; the clock of the gate goes on."""
    dice = random.Random(seed)
    rate, burst = dice.choice([3, 10, 50, 333]), dice.choice([1, 2, 10, 60])
    now, full_at, starts = 0.0, burst / rate, []
    while now < 20:
        asked = admission(gate(rate=rate, burst=burst, full_in=full_at - now))
        take = min(dice.randrange(1, 200), room(asked, 1000))
        starts += [now + start for start in admit(asked, take)]
        full_at = now + asked.gates[0].full_in if take else full_at
        now += dice.choice([0.001, 0.01, 0.1, 0.3, 2.0])
    assert starts == sorted(starts)
    for i, first in enumerate(starts):
        within = sum(1 for start in starts[i:] if start < first + 1 - 1e-6)
        assert within <= rate + burst


def taken_by_the_hungry(rate: float, burst: int, seconds: float, slow: float = 0.0) -> int:
    """What a fleet takes that asks whenever it may; a claim takes it `slow` seconds."""
    now, full_at, taken = 0.0, burst / rate, 0
    while now < seconds:
        asked = admission(gate(rate=rate, burst=burst, full_in=full_at - now))
        count = room(asked, 1000)
        admit(asked, count)
        taken += count
        full_at = now + asked.gates[0].full_in if count else full_at
        assert asked.next_in is not None
        now += asked.next_in * 1.2 + slow
    return taken


def test_a_fleet_that_is_always_hungry_uses_the_whole_rate() -> None:
    assert taken_by_the_hungry(50, 10, seconds=10) >= 50 * 10


def test_a_claim_that_takes_a_third_of_a_second_costs_no_token() -> None:
    """A commit may stall, or the machine: what was given out before must last so long."""
    assert taken_by_the_hungry(29, 1, seconds=30, slow=0.3) >= 29 * 30


def test_all_gates_of_a_row_must_let_it_through() -> None:
    kind, queue = gate(1, concurrency=9), gate(2, Scope(queue="default"), concurrency=4, in_use=1)
    asked = admission(kind, queue)
    assert room(asked) == 3
    admit(asked, 3)
    assert room(asked) == 0
    assert [asked.share(kind), asked.share(queue)] == [3, 3]


def test_the_slowest_of_two_rates_counts_and_both_are_kept() -> None:
    asked = admission(gate(1, rate=100, burst=1), gate(2, Scope(queue="default"), rate=20, burst=1))
    starts = admit(asked, room(asked))
    assert starts == pytest.approx([LEAD + n / 20 for n in range(10)])
    last = LEAD + 9 / 20
    assert [g.full_in for g in asked.gates] == pytest.approx([last + 1 / 100, last + 1 / 20])


def test_a_tenants_gate_is_for_its_rows_alone() -> None:
    each = gate(1, Scope(kind="send", tenant=EACH), concurrency=1)
    acme = gate(2, Scope(kind="send", tenant="acme"), concurrency=1, in_use=1)
    asked = admission(each, acme)
    assert [room(asked, 9, tenant) for tenant in ("acme", "other", None)] == [0, 9, 9]
