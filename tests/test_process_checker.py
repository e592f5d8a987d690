"""The checker of the fault runs sees what it is there to see.

First on the smallest histories that violate a rule, then on workers whose SQL was broken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.broken import broken_sql
from tests.chaos.checker import RULES, check
from tests.chaos.figures import Figures
from tests.chaos.history import Change, History, WorkerLife
from tests.chaos.ledger import Run
from tests.chaos.place import Place
from tests.chaos.scene import Scene, Violated
from tests.chaos.workload import Final, Live

# -- the smallest histories ----------------------------------------------------------------------


def healthy() -> History:
    """Row 1 failed once on worker 1, which was then frozen; worker 2 swept and finished it."""
    return History(
        acknowledged=["1"],
        runs=[
            Run("jobs", "1", 1, 1, 1, 100, 10.0, 11.0, "failed"),
            Run("jobs", "1", 2, 2, 1, 100, 12.0, 30.5, "done"),
            Run("jobs", "1", 3, 3, 2, 200, 22.0, 23.0, "done"),
        ],
        changes=[
            insert(1, 9.0),
            claim(2, 10.0, worker=1, token=1, attempt=1),
            give_back(3, 11.5, worker=1, token=1, attempt=1),
            claim(4, 12.0, worker=1, token=2, attempt=2),
            give_back(5, 21.0, worker=1, token=2, attempt=2, crashes=1),
            claim(6, 22.0, worker=2, token=3, attempt=3, crashes=1),
            delete(7, 23.5, worker=2, token=3, attempt=3, crashes=1),
        ],
        finals=[Final("1", "work_in_session", "done", 3, 2, 3, 5, 1, ran=True)],
        live=[],
        workers={
            1: WorkerLife(1, 100, 3.0, 5.0, heartbeat=15.0, stopped=None, gone=21.0, lost=1),
            2: WorkerLife(2, 200, 3.0, 5.0, heartbeat=40.0, stopped=40.0, gone=None, lost=0),
        },
        attempts={("1", 1): {"retry"}, ("1", 2): {"crashed", "lost"}},
        effects=[("1", 3)],
        finished=True,
        deaths={100: 50.0, 200: 50.0},
        claim_limit=1,
    )


def change(seq: int, at: float, what: str, **columns: int | None) -> Change:
    names = ("owner", "token", "attempt", "crashes")
    empty = {f"{age}_{name}": None for name in names for age in ("old", "new")}
    return Change(seq, at, seq, "1", what, **{**empty, **columns})  # type: ignore[arg-type]


def insert(seq: int, at: float, owner: int | None = None) -> Change:
    fresh = {"new_token": 0, "new_attempt": 0, "new_crashes": 0}
    return change(seq, at, "INSERT", new_owner=owner, **fresh)


def claim(seq: int, at: float, worker: int, token: int, attempt: int, crashes: int = 0) -> Change:
    return change(
        seq,
        at,
        "UPDATE",
        new_owner=worker,
        old_token=token - 1,
        new_token=token,
        old_attempt=attempt - 1,
        new_attempt=attempt,
        old_crashes=crashes,
        new_crashes=crashes,
    )


def give_back(
    seq: int, at: float, worker: int, token: int, attempt: int, crashes: int = 0
) -> Change:
    return change(
        seq,
        at,
        "UPDATE",
        old_owner=worker,
        old_token=token,
        new_token=token,
        old_attempt=attempt,
        new_attempt=attempt,
        old_crashes=0,
        new_crashes=crashes,
    )


def delete(seq: int, at: float, worker: int, token: int, attempt: int, crashes: int) -> Change:
    return change(
        seq,
        at,
        "DELETE",
        old_owner=worker,
        old_token=token,
        old_attempt=attempt,
        old_crashes=crashes,
    )


def lost(history: History) -> None:
    history.acknowledged.append("2")


def left_over(history: History) -> None:
    history.acknowledged.append("2")
    history.live.append(Live("2", None, 0, 0))


def left_claimed(history: History) -> None:
    history.finished = False
    history.acknowledged.append("2")
    history.live.append(Live("2", 2, 1, 1))


def accepted_too_early(history: History) -> None:
    history.runs[2] = replace(history.runs[2], ended=24.0)


def never_ran(history: History) -> None:
    history.runs[2] = replace(history.runs[2], worker=3)


def did_not_end(history: History) -> None:
    history.runs[2] = replace(history.runs[2], how="stopped")


def ran_twice(history: History) -> None:
    history.runs.append(replace(history.runs[2], started=23.1, ended=23.2))


def ran_for_nothing(history: History) -> None:
    history.attempts["1", 1] = set()


def overlapped(history: History) -> None:
    """As worker 1 was declared dead, but only after worker 2 had begun."""
    history.workers[1] = replace(history.workers[1], gone=22.5)


def swept_early(history: History) -> None:
    history.workers[1] = replace(history.workers[1], heartbeat=19.0)


def uncounted(history: History) -> None:
    history.attempts["1", 2] = {"crashed"}


def stolen(history: History) -> None:
    history.changes[5] = replace(history.changes[5], old_owner=1)
    history.changes[4] = replace(history.changes[4], new_owner=1)


def token_kept(history: History) -> None:
    history.changes[5] = replace(history.changes[5], old_token=3)
    history.changes[4] = replace(history.changes[4], new_token=3)


def ended_unclaimed(history: History) -> None:
    history.changes[6] = replace(history.changes[6], old_owner=None)


def ended_by_another(history: History) -> None:
    history.changes[5] = replace(history.changes[5], new_owner=3)
    history.changes[6] = replace(history.changes[6], old_owner=3)


def too_many_attempts(history: History) -> None:
    history.finals[0] = replace(history.finals[0], max_attempts=2)


def claimed_too_many(history: History) -> None:
    history.changes[5] = replace(history.changes[5], transaction=4)


def effect_doubled(history: History) -> None:
    history.effects.append(("1", 2))


def effect_missing(history: History) -> None:
    history.effects.clear()


BREAKS = {
    lost: {"nothing_lost"},
    left_over: {"everything_final"},
    left_claimed: {"nothing_left_claimed"},
    accepted_too_early: {"final_under_its_own_token"},
    never_ran: {"final_under_its_own_token"},
    did_not_end: {"final_under_its_own_token"},
    ran_twice: {"one_run_per_token"},
    ran_for_nothing: {"every_other_run_excused"},
    overlapped: {"no_overlap"},
    swept_early: {"lease_had_expired"},
    uncounted: {"refusals_counted"},
    stolen: {"lawful_changes"},
    token_kept: {"lawful_changes"},
    ended_unclaimed: {"lawful_changes", "final_by_its_owner"},
    ended_by_another: {"final_by_its_owner"},
    too_many_attempts: {"attempts_within_limit"},
    claimed_too_many: {"claims_within_limit"},
    effect_doubled: {"effects_exactly_once"},
    effect_missing: {"effects_exactly_once"},
}


def test_a_healthy_history_violates_no_rule() -> None:
    assert check(healthy()) == []


@pytest.mark.parametrize(("spoil", "rules"), BREAKS.items())
def test_each_rule_speaks_for_itself(spoil: Callable[[History], None], rules: set[str]) -> None:
    history = healthy()
    spoil(history)
    assert {violation.rule for violation in check(history)} >= rules


def test_every_rule_is_seen_to_speak() -> None:
    assert set().union(*BREAKS.values()) == {rule.__name__ for rule in RULES}


# -- broken workers ------------------------------------------------------------------------------


@pytest.mark.process
def test_a_settle_without_its_guard(db_url: str, tmp_path: Path) -> None:
    """A zombie's `done` ends the run of somebody else."""
    fence = "where j.ctid = ours.ctid and j.token = o.token and j.owner = $3"
    probe = "where w.id = o.id and w.token = o.token and w.owner = $3"
    open_ = {fence: "where j.ctid = ours.ctid and $3::bigint > 0", probe: "where w.id = o.id"}
    sql = broken_sql(tmp_path, "settle/done", open_)
    with Scene.at(Place(db_url, tmp_path, sql=sql), slots=2, lease=4.0) as scene:
        # its result is decided before the loop can hear that the worker was declared dead
        scene.load(1, "work_in_loop", ms=4000)
        [zombie] = scene.fleet.start_many(1)
        scene.fleet.until(lambda: len(scene.runs()) == 1)
        scene.fleet.freeze(zombie)
        scene.fleet.start_many(1)
        scene.fleet.until(lambda: len(scene.runs()) == 2)  # elsewhere, under a new token
        scene.fleet.thaw(zombie)
        scene.fleet.until(lambda: scene.workload.finals(scene.db))
        scene.fleet.stop_all()
        with pytest.raises(Violated, match="before its run had ended"):
            scene.judge(Figures("broken"), finished=False)


@pytest.mark.process
def test_a_sweep_that_does_not_wait_for_the_lease(db_url: str, tmp_path: Path) -> None:
    sql = broken_sql(tmp_path, "chores/absent", {"heartbeat_at + lease < now()": "true"})
    with Scene.at(Place(db_url, tmp_path, sql=sql), slots=4, lease=3.0) as scene:
        scene.load(100, ms=400)
        scene.fleet.start_many(2)
        scene.fleet.until(lambda: len(scene.fleet.events("worker.fenced")) >= 2)
        scene.fleet.stop_all()
        with pytest.raises(Violated, match="lease_had_expired"):
            scene.judge(Figures("broken"), finished=False)


@pytest.mark.process
def test_a_claim_that_takes_what_is_claimed(db_url: str, tmp_path: Path) -> None:
    sql = broken_sql(tmp_path, "claim/due", {"and w.owner is null": ""})
    with Scene.at(Place(db_url, tmp_path, sql=sql), slots=4) as scene:
        scene.load(4, ms=2000)
        scene.fleet.start_many(2)

        def taken_again() -> bool:
            if scene.drained():  # by one worker, before the other was there
                scene.load(4, ms=2000)
            return bool(scene.one(TOKENS_BEYOND_ONE))

        scene.fleet.until(taken_again)
        scene.fleet.stop_all()
        with pytest.raises(Violated, match="taken from its owner"):
            scene.judge(Figures("broken"), finished=False)


TOKENS_BEYOND_ONE = "select count(*) from chaos.changes where new_token > 1"


@pytest.mark.process
def test_a_settle_that_forgets_rows(db_url: str, tmp_path: Path) -> None:
    sql = broken_sql(tmp_path, "settle/done", {"  from gone\n": "  from gone where id % 5 <> 0\n"})
    with Scene.at(Place(db_url, tmp_path, sql=sql)) as scene:
        scene.load(20, ms=0)
        scene.fleet.start_many(1)
        scene.fleet.until(scene.drained)
        scene.fleet.stop_all()
        with pytest.raises(Violated, match="nothing_lost"):
            scene.judge(Figures("broken"))
