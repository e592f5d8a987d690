"""Only the current claim writes: every verb against every way in which a claim can be lost.

The same matrix is run with one guard taken out of the SQL, to see that it would be noticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from psycopg import RawCursor

from tests.facts import until
from worker.source import BEGINNING
from worker.statements import statement

Claim = tuple[int, int, int]  # id, token, owner
Mutation = tuple[str, dict[str, str]]  # a file, and what to put in for what

VERBS = ("done", "retry", "snooze", "released", "dead", "cancelled")


class Table:
    """worker.jobs by the statements that workers send, over two connections; one may be altered."""

    def __init__(self, url: str, mutation: Mutation | None = None) -> None:
        self.connections = [psycopg.connect(url, autocommit=True) for _ in range(2)]
        self._mutation = mutation
        self._turn = 0

    def close(self) -> None:
        for connection in self.connections:
            connection.close()

    def sql(self, name: str) -> str:
        text = statement(name)
        if self._mutation is not None and self._mutation[0] == name:
            for old, new in self._mutation[1].items():
                assert old in text, f"{name} no longer says {old!r}"
                text = text.replace(old, new)
        return text

    def run(self, name: str, *params: Any) -> list[Any]:
        """Over the two connections in turn: nothing may hang on one session's state."""
        self._turn += 1
        with RawCursor(self.connections[self._turn % 2]) as cursor:
            cursor.execute(self.sql(name), params)
            return cursor.fetchall() if cursor.description else []

    def ask(self, query: str, *params: Any) -> Any:
        with RawCursor(self.connections[0]) as cursor:
            cursor.execute(query, params)
            row = cursor.fetchone()
            return row[0] if row and len(row) == 1 else row

    def worker(self) -> int:
        [[worker]] = self.run("workers/register", "w", "h", 1, "0", ["default"], ["work"], 4, 30.0)
        return int(worker)

    def enqueue(self, count: int = 1) -> list[int]:
        with self.connections[0].cursor() as cursor:
            cursor.execute(
                "insert into worker.jobs (kind) select 'work' from generate_series(1, %s)"
                " returning id",
                [count],
            )
            return [row[0] for row in cursor]

    def claim(self, worker: int, count: int = 1) -> list[Claim]:
        floor = BEGINNING[0]
        rows = self.run("claim/due", ["default"], ["work"], [0], [floor], [0], count, worker, False)
        return [(row[0], row[5], worker) for row in rows]

    def settle(self, claim: Claim, verb: str) -> bool:
        """Whether it was accepted."""
        key, token, owner = claim
        if verb == "done":
            rows = self.run("settle/done", [key], [token], owner, [1], ['"x"'])
        else:
            refund = [int(verb in ("snooze", "released"))]
            delay = [0.0 if verb in ("retry", "snooze") else None]
            rows = self.run(
                "settle/other",
                *([key], [token], owner, [verb], [None], delay, refund, [1]),
                *(["E"], ["m"], ["f"], ["t"]),
            )
        assert len(rows) <= 1
        return rows == [(key, False)]

    def confirmed(self, claim: Claim) -> list[Any]:
        key, token, owner = claim
        return self.run("settle/confirm", [key], [token], owner)

    def sweep(self, worker: int, max_crashes: int = 3) -> None:
        """The worker's lease has run out."""
        self.run_only("update worker.workers set gone_at = now() where id = $1", worker)
        absent = [row[0] for row in self.run("chores/absent")]
        assert worker in absent
        self.run("chores/sweep", absent, max_crashes)
        self.run_only("update worker.jobs set due_at = now() where owner is null")

    def run_only(self, query: str, *params: Any) -> None:
        with RawCursor(self.connections[0]) as cursor:
            cursor.execute(query, params)

    def row(self, key: int) -> Any:
        """All that is known of it, wherever it is."""
        return self.ask(
            "select row(j.*)::text from worker.all_jobs j where id = $1", key
        ), self.ask("select count(*) from worker.attempts where row_key = $1::text", str(key))


# -- the ways to lose a claim -----------------------------------------------------------------
# Each takes a table and a claim on a row, and leaves the row to somebody else, or to nobody.


def swept(table: Table, claim: Claim) -> None:
    table.sweep(claim[2])


def swept_and_claimed_by_another(table: Table, claim: Claim) -> None:
    table.sweep(claim[2])
    assert table.claim(table.worker())[0][0] == claim[0]


def swept_and_dead(table: Table, claim: Claim) -> None:
    table.sweep(claim[2], max_crashes=1)


def done_by_itself_before(table: Table, claim: Claim) -> None:
    assert table.settle(claim, "done")


def released(table: Table, claim: Claim) -> None:
    assert table.settle(claim, "released")


def released_and_claimed_again_by_the_same(table: Table, claim: Claim) -> None:
    """The owner is the same; only the token tells."""
    assert table.settle(claim, "released")
    assert table.claim(claim[2])[0][:2] == (claim[0], claim[1] + 1)


def retried_and_claimed_again_by_the_same(table: Table, claim: Claim) -> None:
    assert table.settle(claim, "retry")
    assert table.claim(claim[2])[0][0] == claim[0]


def abandoned(table: Table, claim: Claim) -> None:
    table.run("workers/abandon", claim[2])


def disowned(table: Table, claim: Claim) -> None:
    table.run("claim/disown", claim[2], [], [])


def dead_and_retried_by_an_operator(table: Table, claim: Claim) -> None:
    assert table.settle(claim, "dead")
    table.run("operate/retry", [claim[0]], "somebody", None)


def done_retried_by_an_operator_and_claimed_again_by_the_same(table: Table, claim: Claim) -> None:
    assert table.settle(claim, "done")
    table.run("operate/retry", [claim[0]], "somebody", None)
    assert table.claim(claim[2])[0][:2] == (claim[0], claim[1] + 1)


def cancelled_by_an_operator_after_a_release(table: Table, claim: Claim) -> None:
    assert table.settle(claim, "released")
    table.run("operate/cancel", [claim[0]], "somebody", None)


LOSSES: list[Callable[[Table, Claim], None]] = [
    swept,
    swept_and_claimed_by_another,
    swept_and_dead,
    done_by_itself_before,
    released,
    released_and_claimed_again_by_the_same,
    retried_and_claimed_again_by_the_same,
    abandoned,
    disowned,
    dead_and_retried_by_an_operator,
    done_retried_by_an_operator_and_claimed_again_by_the_same,
    cancelled_by_an_operator_after_a_release,
]


def violations(table: Table) -> list[str]:
    """Runs the whole matrix: (loss, verb) where a stale claim was accepted or changed anything."""
    found = []
    for lose in LOSSES:
        for verb in VERBS:
            table.run_only("delete from worker.jobs")
            [key] = table.enqueue()
            [claim] = table.claim(table.worker())
            assert claim[0] == key
            lose(table, claim)
            before = table.row(key)
            accepted = table.settle(claim, verb)
            if accepted or table.row(key) != before:
                found.append(f"{verb} after {lose.__name__}")
    return found


@pytest.fixture
def table(db_url: str) -> Iterator[Table]:
    made = Table(db_url)
    yield made
    made.close()


@pytest.mark.parametrize("verb", VERBS)
def test_a_live_claim_is_accepted(table: Table, verb: str) -> None:
    """Else the matrix would hold of statements that do nothing."""
    table.enqueue()
    [claim] = table.claim(table.worker())
    assert table.settle(claim, verb)
    assert table.ask("select owner from worker.jobs") is None
    final = verb in ("done", "dead", "cancelled")
    assert table.ask("select count(*) from worker.jobs_finished") == int(final)
    assert table.confirmed(claim) == [(claim[0], verb)]


def test_no_stale_claim_writes_anything(table: Table) -> None:
    assert violations(table) == []


NO_TOKEN = {"w.token = o.token and ": "", "j.token = o.token and ": ""}
NO_OWNER = {" and w.owner = $3": " and $3 > 0", " and j.owner = $3": " and $3 > 0"}
NO_GUARD = {
    "w.token = o.token and w.owner = $3": "$3 > 0",
    "j.token = o.token and j.owner = $3": "$3 > 0",
}


@pytest.mark.parametrize(
    ("taken_out", "noticed"),
    [
        pytest.param(
            NO_TOKEN,
            ["released_and_claimed_again_by_the_same", "retried_and_claimed_again_by_the_same"],
            id="without the token",
        ),
        pytest.param(
            NO_OWNER,
            ["swept", "released", "abandoned", "dead_and_retried_by_an_operator"],
            id="without the owner",
        ),
        pytest.param(NO_GUARD, ["swept_and_claimed_by_another"], id="by the key alone"),
    ],
)
@pytest.mark.parametrize("file", ["settle/done", "settle/other"])
def test_a_guard_that_is_missing_is_noticed(
    db_url: str, file: str, taken_out: dict[str, str], noticed: list[str]
) -> None:
    broken = Table(db_url, (file, taken_out))
    try:
        found = violations(broken)
    finally:
        broken.close()
    verb = "done" if file.endswith("done") else "retry"
    for loss in noticed:
        assert f"{verb} after {loss}" in found


@pytest.mark.parametrize(
    ("lose", "expected"),
    [
        (done_by_itself_before, "done"),
        (released, "released"),
        (swept, None),
        (swept_and_dead, None),
        (swept_and_claimed_by_another, None),
        (abandoned, "released"),
    ],
)
def test_confirm_tells_what_was_written_for_the_claim_and_nothing_else(
    table: Table, lose: Callable[[Table, Claim], None], expected: str | None
) -> None:
    """A row that a sweep has ended carries the same claim; nobody settled it."""
    table.enqueue()
    [claim] = table.claim(table.worker())
    assert table.confirmed(claim) == []
    lose(table, claim)
    assert [row[1] for row in table.confirmed(claim)] == ([expected] if expected else [])
    assert table.confirmed((claim[0], claim[1] + 1, claim[2])) == []


def test_a_worker_that_was_declared_dead_claims_nothing(table: Table) -> None:
    table.enqueue(3)
    worker = table.worker()
    assert len(table.claim(worker)) == 1
    table.sweep(worker)
    assert table.claim(worker) == []
    assert table.run("workers/heartbeat", worker, 0, 0, False) == []


def test_operators_leave_a_claimed_row_to_its_owner(table: Table) -> None:
    [key] = table.enqueue()
    [claim] = table.claim(table.worker())
    before = table.row(key)
    for verb in ("operate/cancel", "operate/retry"):
        table.run(verb, [key], "somebody", None)
    table.run("operate/snooze", [key], "somebody", None, None, 60.0)
    assert table.row(key) == before
    assert table.settle(claim, "done")


# -- two statements at the same time ----------------------------------------------------------


async def waits_for_a_lock(url: str) -> None:
    watcher = await asyncpg.connect(url)
    try:
        await until(
            lambda: watcher.fetchval(
                "select count(*) > 0 from pg_stat_activity"
                " where wait_event_type = 'Lock' and datname = current_database()"
            )
        )
    finally:
        await watcher.close()


async def test_a_settle_that_waited_for_a_sweep_is_refused(
    db_url: str, apg: asyncpg.Connection, table: Table
) -> None:
    table.enqueue()
    worker = table.worker()
    [claim] = table.claim(worker)
    other = await asyncpg.connect(db_url)
    try:
        for verb in ("settle/done", "settle/other"):
            async with apg.transaction():
                assert await apg.fetch(statement("chores/sweep"), [worker], 10)
                params: list[Any] = [[claim[0]], [claim[1]], worker]
                if verb == "settle/done":
                    params += [[1], [None]]
                else:
                    none: list[Any] = [None]
                    params += [["retry"], none, [0.0], [0], [1], none, none, none, none]
                settling = asyncio.create_task(other.fetch(statement(verb), *params))
                await waits_for_a_lock(db_url)
            # To its snapshot the row is ours still: it asks again, and finds that it is not.
            assert [tuple(row) for row in await settling] == [(claim[0], True)]
            assert await other.fetch(statement(verb), *params) == []
            assert table.ask("select owner from worker.jobs") is None
            assert table.ask("select count(*) from worker.jobs_finished") == 0
            table.run_only("update worker.jobs set due_at = now()")
            worker = table.worker()
            [claim] = table.claim(worker)
    finally:
        await other.close()


async def test_a_sweep_passes_by_a_row_that_is_being_settled(
    db_url: str, apg: asyncpg.Connection, table: Table
) -> None:
    table.enqueue()
    worker = table.worker()
    [claim] = table.claim(worker)
    async with apg.transaction():
        done = [[claim[0]], [claim[1]], worker, [1], [None]]
        assert len(await apg.fetch(statement("settle/done"), *done)) == 1
        assert table.run("chores/sweep", [worker], 3) == []
    assert table.ask("select state from worker.jobs_finished") == "done"
    assert table.ask("select count(*) from worker.attempts") == 0


async def test_claims_at_the_same_time_take_different_rows(
    apg: asyncpg.Connection, table: Table
) -> None:
    table.enqueue(10)
    one, other = table.worker(), table.worker()
    async with apg.transaction():
        streams = [["default"], ["work"], [0], [BEGINNING[0]], [0]]
        first = {
            row["id"] for row in await apg.fetch(statement("claim/due"), *streams, 6, one, False)
        }
        second = {claim[0] for claim in table.claim(other, 6)}
    assert (len(first), len(second)) == (6, 4)
    assert not first & second


# -- any order of anything --------------------------------------------------------------------


class Fleet(RuleBasedStateMachine):
    """Two workers, three rows, and whatever may happen to them, in any order. The model knows
    which claim on each row is the current one; the table must agree."""

    table: Table

    @initialize()
    def begin(self) -> None:
        self.table.run_only(
            "truncate worker.jobs, worker.jobs_finished, worker.attempts, worker.workers"
        )
        self.workers = [self.table.worker() for _ in range(2)]
        self.keys = self.table.enqueue(3)
        self.live: dict[int, Claim] = {}
        self.ever: list[Claim] = []
        self.final: dict[int, str] = {}
        self.tokens: dict[int, int] = {}

    @rule(which=st.integers(0, 1), count=st.integers(1, 4))
    def claim(self, which: int, count: int) -> None:
        worker = self.workers[which]
        claims = self.table.claim(worker, count)
        assert len(claims) <= count
        for key, token, _ in claims:
            assert key not in self.live, f"{key} has two owners"
            assert key not in self.final, f"{key} left its final state"
            assert token > self.tokens.get(key, 0), "a token came back"
            self.tokens[key] = token
            self.live[key] = (key, token, worker)
            self.ever.append((key, token, worker))

    @rule(age=st.integers(0, 3), late=st.booleans(), verb=st.sampled_from(VERBS))
    def settle(self, age: int, late: bool, verb: str) -> None:
        """By any of the latest claims; or by a zombie, whose row somebody may have by now."""
        zombies = [claim for claim in self.ever if self.live.get(claim[0]) != claim]
        claims = zombies if late else self.ever
        if not claims:
            return
        claim = claims[-1 - age % len(claims)]
        current = self.live.get(claim[0]) == claim
        assert self.table.settle(claim, verb) is current, f"{verb} of {claim}"
        if current:
            del self.live[claim[0]]
            if verb in ("done", "dead", "cancelled"):
                self.final[claim[0]] = verb

    @rule(which=st.integers(0, 1), max_crashes=st.integers(1, 4))
    def die(self, which: int, max_crashes: int) -> None:
        """It is declared dead and starts anew; its old claims live on as zombies."""
        gone = self.workers[which]
        self.table.sweep(gone, max_crashes)
        self.workers[which] = self.table.worker()
        self._returned(gone)

    @rule(which=st.integers(0, 1))
    def abandon(self, which: int) -> None:
        self.table.run("workers/abandon", self.workers[which])
        self._returned(self.workers[which])

    @rule(which=st.integers(0, 1), known=st.booleans())
    def disown(self, which: int, known: bool) -> None:
        """After a claim whose answer was lost."""
        worker = self.workers[which]
        mine = [claim for claim in self.live.values() if claim[2] == worker]
        kept = mine[:1] if known else []
        ids, tokens = [claim[0] for claim in kept], [claim[1] for claim in kept]
        self.table.run("claim/disown", worker, ids, tokens)
        self._returned(worker, but=kept)

    @rule(verb=st.sampled_from(["cancel", "retry", "snooze"]), choice=st.integers(0, 2))
    def operate(self, verb: str, choice: int) -> None:
        key = self.keys[choice]
        more = [None, 0.0] if verb == "snooze" else []
        self.table.run(f"operate/{verb}", [key], "somebody", None, *more)
        if key in self.live:
            return
        if verb == "cancel" and key not in self.final:
            self.final[key] = "cancelled"
        if verb == "retry":
            self.final.pop(key, None)

    def _returned(self, worker: int, but: list[Claim] | None = None) -> None:
        """The claims of that worker are over, whatever became of the rows."""
        for key, claim in list(self.live.items()):
            if claim[2] == worker and claim not in (but or []):
                del self.live[key]
                state = self.table.ask("select state from worker.jobs_finished where id = $1", key)
                if state is not None:
                    self.final[key] = state

    @invariant()
    def the_table_agrees(self) -> None:
        if not hasattr(self, "keys"):
            return
        with self.table.connections[0].cursor() as cursor:
            cursor.execute("select id, token, owner, attempt, crashes from worker.jobs")
            rows = {row[0]: row for row in cursor}
            cursor.execute("select id, state, token from worker.jobs_finished")
            finished = {row[0]: row for row in cursor}
        assert not rows.keys() & finished.keys(), "a row is in both tables"
        assert rows.keys() | finished.keys() == set(self.keys), "a row was lost"
        assert {key: row[1] for key, row in finished.items()} == self.final
        claimed = {key: row[:3] for key, row in rows.items() if row[2] is not None}
        assert claimed == self.live
        for key, row in (*rows.items(), *finished.items()):
            token = row[1] if key in rows else row[2]
            assert token == self.tokens.get(key, 0), "the token fell or jumped"
        for _, token, owner, attempt, crashes in rows.values():
            assert 0 <= attempt <= token
            assert crashes <= attempt or owner is None
            assert attempt >= 1 or owner is None


def explore(url: str, mutation: Mutation | None, examples: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    table = Table(url, mutation)
    try:
        run_state_machine_as_test(
            type("Machine", (Fleet,), {"table": table}),
            settings=settings(
                max_examples=examples,
                stateful_step_count=30,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,
                phases=[Phase.generate],
            ),
        )
    finally:
        table.close()


def test_any_order_of_anything(db_url: str) -> None:
    explore(db_url, None, 25)


@pytest.mark.parametrize(
    "mutation",
    [
        pytest.param(("settle/done", NO_GUARD), id="done by the key alone"),
        pytest.param(("settle/other", NO_GUARD), id="other by the key alone"),
        pytest.param(("claim/due", {"and w.owner is null": ""}), id="claim of what is claimed"),
        pytest.param(
            ("claim/due", {"token = j.token + 1": "token = j.token"}),
            id="claim, same token",
        ),
        pytest.param(("claim/due", {"limit $6": "limit $6 + 1"}), id="claim of one too many"),
        pytest.param(
            ("chores/sweep", {"j.owner = any ($1::bigint[])": "j.owner > 0 and $1 is not null"}),
            id="sweep of everybody",
        ),
        pytest.param(
            ("workers/abandon", {"owner = $1": "owner > 0 and $1 > 0"}), id="abandon of everybody"
        ),
        pytest.param(("claim/disown", {"owner = $1": "owner > 0 and $1 > 0"}), id="disown others"),
    ],
)
def test_it_would_find_a_guard_that_is_missing(db_url: str, mutation: Mutation) -> None:
    with pytest.raises(AssertionError):
        explore(db_url, mutation, 100)
