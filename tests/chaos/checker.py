"""Proves from a history that nothing happened that may never happen.

Each rule is a function that yields violations; its docstring is the invariant. A rule that no
broken worker can violate proves nothing: tests/test_process_checker.py breaks the worker and sees
these speak.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.history import Change, History
from tests.chaos.ledger import Run

STRAY_MOST = 3.0  # seconds that a handler may outlive the release of its row by a stopping worker


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    key: str
    what: str


Rule = Callable[[History], Iterator[Violation]]


def check(history: History) -> list[Violation]:
    """Every violation of every rule."""
    return [violation for rule in RULES for violation in rule(history)]


def report(history: History, violations: list[Violation], most: int = 3) -> str:
    """The violations, the first of each rule with all that happened to its row."""
    lines = [f"{len(violations)} violations of {len({v.rule for v in violations})} rules"]
    told: Counter[str] = Counter()
    for violation in violations:
        told[violation.rule] += 1
        if told[violation.rule] <= most:
            lines.append(f"{violation.rule}: row {violation.key}: {violation.what}")
        if told[violation.rule] == 1:
            lines.append(history.tell(violation.key))
    return "\n".join(lines)


def excuse(history: History, run: Run) -> str | None:
    """Why a run whose result was not the row's last was needed, or None.

    One of failure, lost commit (of a handler's session), snooze, release, kill, expiry (of its
    worker's lease): what the table tells of that very token.
    """
    outcomes = history.attempts.get((run.key, run.token), set())
    life = history.workers.get(run.worker)
    if outcomes & {"retry", "dead"} and run.how == "failed":
        return "failure"
    if "retry" in outcomes and run.how == "done":
        return "lost commit"
    if "snooze" in outcomes and run.how == "done":
        return "snooze"
    if "released" in outcomes and run.how != "done":
        return "release"
    if "crashed" in outcomes and life is not None and life.gone is not None:
        return "kill" if run.pid in history.killed else "expiry"
    return None


# -- the rules ---------------------------------------------------------------------------------


def nothing_lost(history: History) -> Iterator[Violation]:
    """A row whose enqueue was acknowledged is there, once."""
    there = Counter(final.key for final in history.finals)
    there.update(live.key for live in history.live)
    for key in history.acknowledged:
        if there[key] != 1:
            yield Violation("nothing_lost", key, f"stands {there[key]} times in the tables")


def everything_final(history: History) -> Iterator[Violation]:
    """When the work is over no row is left."""
    for live in history.live if history.finished else ():
        yield Violation("everything_final", live.key, f"still live: {live}")


def nothing_left_claimed(history: History) -> Iterator[Violation]:
    """When no worker runs any more no row is claimed."""
    for live in history.live:
        if live.owner is not None:
            yield Violation("nothing_left_claimed", live.key, f"claimed by worker {live.owner}")


def final_under_its_own_token(history: History) -> Iterator[Violation]:
    """`done` means that the run under that very token came to its end, `dead` that it failed."""
    ended = {(run.key, run.token, run.worker): run for run in history.runs}
    for final in history.finals:
        if not final.ran:
            continue
        run = ended.get((final.key, final.token, final.worker or 0))
        wanted = {
            "done": ("done",),
            "dead": ("failed",),
            "cancelled": ("done", "stopped", "failed"),
        }
        if run is None:
            told = f"{final.state} under token {final.token}, which never ran"
        elif run.how not in wanted[final.state]:
            told = f"{final.state} under token {final.token}, whose run was {run.how or 'unended'}"
        elif run.ended is not None and _left_at(history, final.key) < run.ended:
            told = f"{final.state} under token {final.token} before its run had ended"
        else:
            continue
        yield Violation("final_under_its_own_token", final.key, told)


def _left_at(history: History, key: str) -> float:
    """When the row left the live table; for ever after its runs, if nobody saw it leave."""
    changes = history.changes_of.get(key, [])
    return changes[-1].at if changes and changes[-1].what == "DELETE" else float("inf")


def one_run_per_token(history: History) -> Iterator[Violation]:
    """A claim runs a row once."""
    runs = Counter((run.key, run.token) for run in history.runs)
    for (key, token), count in runs.items():
        if count > 1:
            yield Violation("one_run_per_token", key, f"{count} runs under token {token}")


def every_other_run_excused(history: History) -> Iterator[Violation]:
    """Runs <= 1 + failures + kills + lease expiries + releases: each run but the one whose result
    stands is told by one of those."""
    for key, runs in history.runs_of.items():
        final = history.final_of.get(key)
        for run in runs:
            if final is not None and run.token == final.token:
                continue
            if history.finished and excuse(history, run) is None:
                told = f"run under token {run.token} was {run.how or 'unended'}, and ran again"
                yield Violation("every_other_run_excused", key, told)


def no_overlap(history: History) -> Iterator[Violation]:
    """Two runs overlap only if the worker of the older claim had lost its lease before the younger
    one began; or, for the last moments of a process, if it stopped and its handler would not."""
    for key, runs in history.runs_of.items():
        in_order = sorted(runs, key=lambda run: run.token)
        for old, young in itertools.combinations(in_order, 2):
            overlap = history.overlap(old, young)
            if overlap <= 0:
                continue
            life = history.workers.get(old.worker)
            if life is not None and life.gone is not None and life.gone <= young.started:
                continue
            released = "released" in history.attempts.get((key, old.token), set())
            if released and old.how != "done" and overlap <= STRAY_MOST:
                continue
            told = f"tokens {old.token} and {young.token} ran together for {overlap:.3f} s"
            yield Violation("no_overlap", key, told)


def lease_had_expired(history: History) -> Iterator[Violation]:
    """A worker is declared dead only when its lease is over, by the database's clock."""
    for life in history.workers.values():
        if life.gone is not None and life.stopped is None:
            early = life.heartbeat + life.lease - life.gone
            if early > 0:
                told = f"worker {life.id} was declared dead {early:.3f} s early"
                yield Violation("lease_had_expired", "-", told)


def refusals_counted(history: History) -> Iterator[Violation]:
    """What a worker that was declared dead, and lives, still had to say is recorded as lost."""
    for run in history.runs:
        if run.pid in history.killed:
            continue
        outcomes = history.attempts.get((run.key, run.token), set())
        final = history.final_of.get(run.key)
        ended = final is not None and final.token == run.token and not final.ran
        if ("crashed" in outcomes or ended) and "lost" not in outcomes:
            told = f"token {run.token} was swept, but its result is not recorded as lost"
            yield Violation("refusals_counted", run.key, told)


def lawful_changes(history: History) -> Iterator[Violation]:
    """Every change is a transition of the state machine: the token grows with each claim and never
    else; the attempt falls only by release and snooze; a claimed row is never claimed."""
    for key, changes in history.changes_of.items():
        before: Change | None = None
        for change in changes:
            if (why := _unlawful(before, change)) is not None:
                yield Violation("lawful_changes", key, f"{why}: {change}")
            before = change


def _unlawful(before: Change | None, now: Change) -> str | None:
    if now.what == "INSERT":
        return None if now.new_owner is None else "born claimed"
    if before is None or before.what == "DELETE":
        return "changed while it was not there"
    left = (before.new_owner, before.new_token, before.new_attempt, before.new_crashes)
    if left != (now.old_owner, now.old_token, now.old_attempt, now.old_crashes):
        return "changed unseen"
    if now.what == "DELETE":
        return "ended unclaimed" if now.old_owner is None else None
    assert now.old_token is not None
    assert now.new_token is not None
    assert now.old_attempt is not None
    assert now.new_attempt is not None
    assert now.old_crashes is not None
    assert now.new_crashes is not None
    grown = (
        now.new_token - now.old_token,
        now.new_attempt - now.old_attempt,
        now.new_crashes - now.old_crashes,
    )
    match now.old_owner is not None, now.new_owner is not None:
        case False, True:
            return None if grown[0] > 0 and grown[1:] == (1, 0) else "an odd claim"
        case True, False:
            return None if grown in {(0, 0, 0), (0, -1, 0), (0, 0, 1)} else "an odd return"
        case True, True:
            return "taken from its owner"
        case _:
            return None if grown == (0, 0, 0) else "an odd change of a waiting row"


def final_by_its_owner(history: History) -> Iterator[Violation]:
    """A row becomes final under the claim that it had when it left the live table."""
    for final in history.finals:
        changes = history.changes_of.get(final.key, [])
        if not changes or changes[-1].what != "DELETE":
            yield Violation("final_by_its_owner", final.key, "final, but never left the table")
        elif (changes[-1].old_owner, changes[-1].old_token) != (final.worker, final.token):
            told = f"left as claim {changes[-1].old_owner}/{changes[-1].old_token}"
            yield Violation("final_by_its_owner", final.key, told)


def attempts_within_limit(history: History) -> Iterator[Violation]:
    """attempt <= max_attempts."""
    limits = {final.key: final.max_attempts for final in history.finals}
    for key, changes in history.changes_of.items():
        limit = limits.get(key)
        most = max(change.new_attempt or 0 for change in changes)
        if limit is not None and most > limit:
            yield Violation("attempts_within_limit", key, f"attempt {most} of {limit}")


def claims_within_limit(history: History) -> Iterator[Violation]:
    """A claim of n takes at most n rows."""
    taken: Counter[int] = Counter()
    for change in history.changes:
        if change.what == "UPDATE" and change.old_owner is None and change.new_owner is not None:
            taken[change.transaction] += 1
    for transaction, count in taken.items():
        if count > history.claim_limit:
            told = f"{count} rows in one claim (transaction {transaction})"
            yield Violation("claims_within_limit", "-", told)


def effects_exactly_once(history: History) -> Iterator[Violation]:
    """What a handler wrote through its session is there once if its row is done, else not."""
    effects = Counter(key for key, _ in history.effects)
    tokens = dict(history.effects)
    for final in history.finals:
        if final.kind not in ("work_in_session", "work_in_batch_session"):
            continue
        wanted = 1 if final.state == "done" else 0
        if effects[final.key] != wanted:
            told = f"{effects[final.key]} effects of a row that is {final.state}"
            yield Violation("effects_exactly_once", final.key, told)
        elif wanted and tokens[final.key] != final.token:
            told = f"effect of token {tokens[final.key]}, done under {final.token}"
            yield Violation("effects_exactly_once", final.key, told)
    for live in history.live:
        if effects[live.key]:
            yield Violation("effects_exactly_once", live.key, "an effect of a row that is not done")


RULES: tuple[Rule, ...] = (
    nothing_lost,
    everything_final,
    nothing_left_claimed,
    final_under_its_own_token,
    one_run_per_token,
    every_other_run_excused,
    no_overlap,
    lease_had_expired,
    refusals_counted,
    lawful_changes,
    final_by_its_owner,
    attempts_within_limit,
    claims_within_limit,
    effects_exactly_once,
)
