"""`worker rows`: an operator at 3 a.m., on tables of a user's own, against workers that run."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import asyncpg
import pytest

from tests.adopted import Donation, adopt, ghost, make_donations, one, outcomes, source, theirs
from tests.cli import CLI
from tests.facts import until
from tests.workers import drained, running
from worker import App, Context, Dead, Retry, Snooze
from worker.events import RowSettled, RowStarted
from worker.sources.rows import FIRST
from worker.tables.spec import TableSpec

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def cli(db_url: str, capsys: pytest.CaptureFixture[str]) -> CLI:
    return CLI(db_url, capsys)


async def register(
    connection: asyncpg.Connection,
    name: str = "donations",
    *,
    table: str = "public.donations",
    key: tuple[str, ...] = ("id",),
    due: str = "next_at",
    where: str | None = None,
    tenant: str | None = None,
) -> None:
    await connection.execute(
        "insert into worker.sources (name, table_oid, table_name, key, due, condition, tenant,"
        " index_name)"
        " values ($1, $2::text::regclass, $2::text, $3, $4, $5, $6, 'duerow_due_donations')",
        *(name, table, list(key), due, where, tenant),
    )


def an_app(**rows: Any) -> App:
    """Its donations fail as their amount says."""
    app = App()

    @app.rows("donations", due="next_at", **rows)
    async def charge(donation: Donation) -> None:
        match donation.amount:
            case 1:
                raise Dead("card expired")
            case 2:
                raise Retry("provider down", after=3600)
            case 3:
                raise Snooze("later", after=3600)

    return app


async def actions(connection: asyncpg.Connection) -> list[tuple[Any, ...]]:
    rows = await connection.fetch(
        "select actor, action, source, target, reason from worker.operator_actions order by id"
    )
    return [tuple(row) for row in rows]


async def some_of_each(db_url: str, apg: asyncpg.Connection) -> None:
    """Ids 1 to 5: dead, retrying, snoozed, due, scheduled."""
    await make_donations(apg, 3)
    await register(apg, tenant="org")
    await drained(an_app(tenant="org"), db_url)
    await apg.execute("insert into donations (amount, org) values (9, 'org 0')")
    await apg.execute("insert into donations (amount, next_at) values (9, now() + interval '1 h')")


# -- looking ------------------------------------------------------------------------------------


async def test_list_tells_the_states_apart(db_url: str, apg: asyncpg.Connection, cli: CLI) -> None:
    await some_of_each(db_url, apg)
    await apg.execute("insert into donations (next_at) values (null), ('infinity')")
    found = cli("rows", "list", "donations")
    assert found.code == 0, found.err
    states = {row["key"]: row["state"] for row in found.rows}
    assert states == {
        "4": "due",
        "2": "retrying",
        "3": "scheduled",
        "5": "scheduled",
        "1": "dead",
    }
    assert (found.rows[0]["key"], found.rows[-1]["key"]) == ("4", "1")
    [dead] = cli("rows", "list", "donations", "--state", "dead", "--json").json
    assert dead["last_error"] == "card expired"
    assert dead["error_type"] == "Dead"
    assert dead["attempt"] == 1


@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        (("--state", "dead"), ["1"]),
        (("--state", "dead", "--state", "due"), ["4", "1"]),
        (("--state", "running"), []),
        (("--tenant", "org 0"), ["4", "3"]),
        (("--error-type", "Dead"), ["1"]),
        (("--error-type", "Retry", "--since", "1m"), ["2"]),
        (("--since", "0s"), []),
        (("--limit", "1"), ["4"]),
    ],
)
async def test_list_filters(
    db_url: str, apg: asyncpg.Connection, cli: CLI, filters: tuple[str, ...], keys: list[str]
) -> None:
    await some_of_each(db_url, apg)
    assert [row["key"] for row in cli("rows", "list", "donations", *filters).rows] == keys


async def test_a_change_of_the_due_column_voids_a_death(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    await some_of_each(db_url, apg)
    await apg.execute("update donations set next_at = now() - interval '1 s' where id = 1")
    assert cli("rows", "list", "donations", "--state", "dead").rows == []
    assert {r["key"] for r in cli("rows", "list", "donations", "--state", "due").rows} == {"1", "4"}


async def test_show(db_url: str, apg: asyncpg.Connection, cli: CLI) -> None:
    await some_of_each(db_url, apg)
    [shown] = cli("rows", "show", "donations", "1", "--json").json
    assert shown["state"] == "dead"
    assert shown["last_error"] == "card expired"
    assert shown["next_run_at"] is None
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["dead"]
    assert "card expired" in cli("rows", "show", "donations", "1").out


async def test_what_is_not_there(db_url: str, apg: asyncpg.Connection, cli: CLI) -> None:
    await make_donations(apg, 1)
    await register(apg)
    for words, code, told in (
        (("list", "donation"), 6, "no adopted table is called"),
        (("show", "donations", "99"), 6, "donations has no row 99"),
        (("retry", "donations", "99"), 6, "donations has no row 99"),
        (("cancel", "donations", "99", "--yes"), 6, "donations has no row 99"),
        (("show", "donations", "ninety"), 2, "cannot be a key"),
        (("retry", "donations"), 2, "no row is named"),
        (("cancel", "donations", "1"), 2, "add --yes"),
        (("snooze", "donations", "1"), 2, "--for or --until"),
    ):
        answer = cli("rows", *words)
        assert answer.code == code, answer
        assert told in answer.err
    assert await actions(apg) == []


async def test_a_table_that_was_not_prepared(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    await apg.execute("create table donations (id int primary key, next_at timestamptz)")
    await register(apg)
    answer = cli("rows", "list", "donations")
    assert answer.code == 8 or answer.code == 6, answer
    assert "duerow_" in answer.err


# -- retrying -----------------------------------------------------------------------------------


async def test_retry_runs_a_dead_row_again_with_its_attempts_anew(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    await make_donations(apg, 1)
    await register(apg)
    await drained(an_app(), db_url)
    before, columns = await one(apg), await theirs(apg)
    assert before["duerow_state"] == "dead"
    answer = cli("rows", "retry", "donations", "1", "--reason", "new card", "--by", "ana")
    assert answer.code == 0, answer.err
    assert answer.rows == [{"key": "1", "outcome": "retried", "detail": "dead"}]
    assert await theirs(apg) == columns
    await drained(an_app(), db_url)  # fails again
    assert await outcomes(apg) == [(1, "dead"), (1, "dead")]
    assert (await one(apg))["duerow_token"] > before["duerow_token"]
    assert await actions(apg) == [("ana", "retry", "donations", "1", "new card")]


async def test_retry_hurries_a_row_that_waits_and_keeps_its_attempts(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    await some_of_each(db_url, apg)
    answer = cli("rows", "retry", "donations", "2", "5", "4")
    assert [row["outcome"] for row in answer.rows] == ["due", "due", "due"]
    assert [target for _, _, _, target, _ in await actions(apg)] == ["2", "5"]  # 4 was due
    assert {r["key"] for r in cli("rows", "list", "donations", "--state", "due").rows} == set("245")
    future = (await one(apg, 5))["next_at"]
    await drained(an_app(), db_url)
    assert await outcomes(apg, 2) == [(1, "retry"), (2, "retry")]
    assert await outcomes(apg, 5) == [(1, "done")]
    assert future > (await apg.fetchval("select now()"))


async def test_retry_many_by_what_they_have_in_common(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    await make_donations(apg)
    await register(apg)
    await apg.execute("insert into donations (amount) select 1 from generate_series(1, 7)")
    await drained(an_app(), db_url)
    chosen = ("rows", "retry", "donations", "--error-type", "Dead", "--since", "1h")
    refused = cli(*chosen)
    assert refused.code == 2
    assert "would run 7 dead rows of donations again" in refused.err
    assert len(cli(*chosen, "--limit", "2", "--yes").rows) == 2
    assert len(cli(*chosen, "--yes").rows) == 5
    assert "no row fits" in cli(*chosen, "--yes").err
    assert len(await actions(apg)) == 7


async def test_retry_wakes_a_worker(db_url: str, apg: asyncpg.Connection, cli: CLI) -> None:
    await make_donations(apg, 1)
    await register(apg)
    async with running(an_app(), db_url, poll_interval=30, poll_max=60) as worker:
        await until(lambda: len(worker.seen.of(RowSettled)) == 1)
        await asyncio.to_thread(cli, "rows", "retry", "donations", "1")
        await until(lambda: len(worker.seen.of(RowSettled)) == 2, within=10)


async def test_what_would_not_run_is_refused(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    await make_donations(apg, 2, where="status = 'active'")
    await register(apg, where="status = 'active'")
    await apg.execute("update donations set next_at = null where id = 1")
    await apg.execute("update donations set status = 'ended' where id = 2")
    for key in ("1", "2"):
        answer = cli("rows", "retry", "donations", key)
        assert answer.code == 6
        assert "due column is empty" in answer.err
    assert cli("rows", "show", "donations", "2").record["state"] == "idle"


async def test_a_row_that_somebody_has_locked_is_busy_and_the_others_are_not(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    await make_donations(apg, 2)
    await register(apg)
    await apg.execute("update donations set next_at = now() + interval '1 h'")
    async with apg.transaction():
        await apg.execute("select from donations where id = 1 for update")
        answer = await asyncio.to_thread(cli, "rows", "retry", "donations", "1", "2")
    assert answer.code == 6
    assert [(row["key"], row["outcome"]) for row in answer.rows] == [("1", "busy"), ("2", "due")]


# -- cancelling, snoozing ------------------------------------------------------------------------


async def test_cancel_a_waiting_row_until_its_due_column_changes(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    await make_donations(apg, 4)
    await register(apg)
    columns = await theirs(apg)
    done = cli("rows", "cancel", "donations", "4", "--yes", "--by", "ana", "--reason", "fraud")
    assert done.rows == [{"key": "4", "outcome": "cancelled", "detail": ""}]
    assert await theirs(apg) == columns
    again = cli("rows", "cancel", "donations", "4", "--yes")
    assert again.code == 6
    assert "it is cancelled" in again.err
    [found] = cli("rows", "list", "donations", "--state", "cancelled", "--json").json
    assert found["last_error"] == "cancelled by ana: fraud"
    await drained(an_app(), db_url)
    assert await outcomes(apg, 4) == []
    await apg.execute("update donations set next_at = now() - interval '1 s' where id = 4")
    await drained(an_app(), db_url)
    assert await outcomes(apg, 4) == [(1, "done")]


async def test_cancel_stops_a_row_that_runs(db_url: str, apg: asyncpg.Connection, cli: CLI) -> None:
    await make_donations(apg, 1)
    await register(apg)
    app = App()

    @app.rows("donations", due="next_at")
    async def charge(donation: Donation) -> None:
        await asyncio.sleep(3600)

    async with running(app, db_url, lease=60) as worker:  # it must not need its next heartbeat
        await until(lambda: worker.seen.of(RowStarted))
        assert cli("rows", "list", "donations", "--state", "running").rows[0]["key"] == "1"
        assert "worker rows cancel donations 1" in cli("rows", "retry", "donations", "1").err
        answer = await asyncio.to_thread(
            cli, "rows", "cancel", "donations", "1", "--yes", "--wait", "10s"
        )
        assert answer.rows == [{"key": "1", "outcome": "cancelled", "detail": "while it ran"}]
        assert await outcomes(apg) == [(1, "cancelled")]

        async def handled() -> bool:
            at = await apg.fetchval("select handled_at from worker.operator_actions")
            return at is not None

        await until(handled)
    assert len(await actions(apg)) == 1


async def test_a_cancel_outlives_the_worker_that_was_asked(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    """It dies before it has heard of it: the sweep carries the cancel out, as for jobs."""
    await make_donations(apg, 2)
    await register(apg)
    worker = await ghost(apg)
    rows = await source(apg, TableSpec("donations", "donations", due="next_at"), "id")
    assert len(await apg.fetch(rows.claim_sql, worker, 2, FIRST)) == 2
    assert cli("rows", "cancel", "donations", "1", "--yes").rows[0]["outcome"] == "asked"
    sql, params = rows.sweep([worker], 3)
    swept = {row[0]: row[3] for row in await apg.fetch(sql, *params)}
    assert swept == {"1": "cancelled", "2": "crashed"}
    assert await outcomes(apg, 1) == [(1, "cancelled")]
    assert "an operator asked for it" in (await one(apg, 1))["duerow_error"]
    assert await apg.fetchval("select count(handled_at) from worker.operator_actions") == 1
    await drained(an_app(), db_url)
    assert await outcomes(apg, 1) == [(1, "cancelled")], "it does not run again"
    assert (2, "retry") in await outcomes(apg, 2)


async def test_snooze(db_url: str, apg: asyncpg.Connection, cli: CLI) -> None:
    await some_of_each(db_url, apg)
    columns = await theirs(apg)
    assert cli("rows", "snooze", "donations", "4", "2", "--for", "2h").code == 0
    assert cli("rows", "snooze", "donations", "5", "--until", "2031-01-01T00:00+00:00").code == 0
    dead = cli("rows", "snooze", "donations", "1", "--for", "2h")
    assert (dead.code, "it is dead" in dead.err) == (6, True)
    assert await theirs(apg) == columns
    due = {row["key"]: row["due_at"] for row in cli("rows", "list", "donations").rows}
    assert due["5"] == "2031-01-01T00:00:00.000Z"
    now = await apg.fetchval("select now()")
    assert now + HOUR < dt.datetime.fromisoformat(due["4"]) < now + 2 * HOUR + HOUR / 60
    assert (await one(apg, 2))["duerow_attempt"] == 1
    assert [action for _, action, *_ in await actions(apg)] == ["snooze"] * 3


# -- keys ---------------------------------------------------------------------------------------


async def test_composite_keys_in_a_partitioned_table_and_a_due_column_without_zone(
    db_url: str, apg: asyncpg.Connection, cli: CLI
) -> None:
    await apg.execute("set time zone 'Asia/Tokyo'")
    await apg.execute(
        """create table pay (region char(9), made_at timestamptz, n int, at timestamp,
                             primary key (region, made_at, n)) partition by list (region);
           create table pay_1 partition of pay for values in ('no,rth');
           create table pay_2 partition of pay for values in ('south')"""
    )
    await adopt(apg, "pay", due="at")
    key = ("region", "made_at", "n")
    await register(apg, "pay", table="public.pay", key=key, due="at")
    await apg.execute(
        "insert into pay select r, timestamptz '2026-01-01 00:00+02', n, now() at time zone 'UTC'"
        " from unnest(array['no,rth', 'south']) r, generate_series(1, 2) n"
    )
    app = App()

    @app.rows("pay", key=key, due="at")
    async def pay(row: dict[str, Any], context: Context) -> None:
        raise Dead("no")

    await drained(app, db_url)
    found = cli("rows", "list", "pay", "--state", "dead").rows
    assert len(found) == 4
    south = "south,2025-12-31 22:00:00+00,1"
    assert south in {row["key"] for row in found}
    assert cli("rows", "show", "pay", south, "--json").json[0]["state"] == "dead"
    for row in cli("rows", "list", "pay", "--json").json:  # as it is listed
        assert cli("rows", "show", "pay", row["key"], "--json").json[0]["key"] == row["key"]
    north = r"no\,rth,2026-01-01 07:00+09,1"
    assert "it has 4 parts" in cli("rows", "show", "pay", "no,rth,2026-01-01,1").err
    assert cli("rows", "show", "pay", north, "--json").json[0]["state"] == "dead"
    assert cli("rows", "retry", "pay", south, north).code == 0
    assert len(cli("rows", "list", "pay", "--state", "due").rows) == 2
    assert cli("rows", "snooze", "pay", north, "--for", "1h").code == 0
    [moved] = cli("rows", "list", "pay", "--state", "scheduled").rows
    left = dt.datetime.fromisoformat(moved["due_at"]) - await apg.fetchval("select now()")
    assert HOUR / 2 < left <= HOUR
    assert len(cli("rows", "retry", "pay", "--state", "dead", "--yes").rows) == 2


async def test_no_verb_reads_the_whole_table(apg: asyncpg.Connection, db_url: str) -> None:
    """Nor does the rule that looks for dead rows."""
    from tests.adopted import source
    from worker.sources.operate import operation
    from worker.tables.catalog import describe_async
    from worker.tables.spec import TableSpec

    await make_donations(apg)
    await apg.execute(
        "insert into donations (next_at)"
        " select now() + n * interval '1 s' from generate_series(1, 20000) n"
    )
    await apg.execute("vacuum analyze donations")
    spec = TableSpec("donations", "donations", due="next_at", tenant="org")
    layout = await describe_async(apg, "donations")
    for name, params in (
        ("find", [["dead"], None, None, None, 50]),
        ("find", [["due"], None, None, None, 50]),
        ("find", [None, None, None, None, 50]),
        ("show", ['[["7"]]']),
        ("retry", ['[["7"]]', "ana", None]),
        ("cancel", ['[["7"]]', "ana", None]),
        ("snooze", ['[["7"]]', "ana", None, None, 60.0]),
    ):
        await _reads_little(apg, operation(name, spec, layout), params)
    sql, params = (await source(apg, spec)).redrive("donations", 60.0, 3, 100)
    await _reads_little(apg, sql, params)


async def _reads_little(apg: asyncpg.Connection, sql: str, params: list[Any]) -> None:
    async with apg.transaction():
        await apg.execute("set local jit = off")
        lines = await apg.fetch("explain (analyze, timing off) " + sql, *params)
    plan = "\n".join(line[0] for line in lines)
    assert "Seq Scan on donations" not in plan, plan
