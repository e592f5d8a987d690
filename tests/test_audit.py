"""The audit queries, on what real workers left behind; each through psycopg and through psql."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.audit_history import claim, enqueue, make_history, register
from tests.pages import ROOT, Shell, blocks, commands
from tests.postgres import local_binaries, with_database
from worker import audit
from worker.assets import sql_directory
from worker.carrier import send
from worker.errors import DuerowError, NotFound, SchemaError, UsageError
from worker.statements import statement

QUERIES = [query.name for query in audit.queries()]
FIRST = (
    "attempts_of", "dead_rows", "double_starts", "due_now", "errors_top", "oldest_due",
    "throughput_by_minute", "timeline", "who_ran", "worker_history",
)  # fmt: skip


@dataclass
class History:
    """A database in which something has happened. ids: of its jobs, by kind."""

    url: str
    connection: psycopg.Connection
    ids: dict[str, list[int]]

    def ask(self, name: str, **params: object) -> list[dict[str, Any]]:
        columns, rows = audit.run(self.connection, name, **params)
        return [dict(zip(columns, row, strict=True)) for row in rows]


@pytest.fixture(scope="module")
def history(admin: psycopg.Connection, database_server: str, template_db: str) -> Iterator[History]:
    name = f"duerow_audit_{uuid.uuid4().hex[:12]}"
    admin.execute(
        sql.SQL("create database {} template {}").format(
            sql.Identifier(name), sql.Identifier(template_db)
        )
    )
    url = with_database(database_server, name)
    try:
        ids = make_history(url)
        with psycopg.connect(url, autocommit=True) as connection:
            yield History(url, connection, ids)
    finally:
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


# -- the files ------------------------------------------------------------------------------


def test_the_first_ten_are_there() -> None:
    assert set(FIRST) <= set(QUERIES)


@pytest.mark.parametrize("name", QUERIES)
def test_the_help_lists_the_parameters_of_the_sql(name: str) -> None:
    query = audit.query(name)
    body = query.sql[len(query.help) :]
    read = set(re.findall(r"current_setting\('duerow\.(\w+)'", body))
    assert read == {parameter.name for parameter in query.parameters}
    for parameter in query.parameters:
        optional = f"current_setting('duerow.{parameter.name}', true)"
        assert (optional in body) is not parameter.required
        if parameter.default is not None:
            assert f"coalesce(nullif({optional}, ''), '{parameter.default}')" in body
    assert "?" in query.question


@pytest.mark.parametrize("name", QUERIES)
def test_the_help_lists_the_columns(history: History, name: str) -> None:
    columns, _ = audit.run(history.connection, name, **_params(history, name))
    _, _, listed = audit.query(name).help.partition("\nColumns\n")
    listed, _, _ = listed.partition("\n\n")
    named = re.findall(r"^  (\w+(?:, \w+)*)(?:  |$)", listed, re.MULTILINE)
    assert ", ".join(named).split(", ") == columns


@pytest.mark.parametrize("name", QUERIES)
def test_psql_gives_the_same(history: History, name: str) -> None:
    params = _params(history, name)
    columns, before = audit.run(history.connection, name, **params)
    file = sql_directory() / "audit" / f"{name}.sql"
    header, *lines = _psql(history.url, file, params)
    _, after = audit.run(history.connection, name, **params)
    assert header == columns
    assert len(lines) == len(before)
    numbers = [n for n in range(len(columns)) if all(isinstance(r[n], str | int) for r in before)]
    # A minute may end between two of them, and with it a line of the throughput.
    assert [[line[n] for n in numbers] for line in lines] in (
        [[str(row[n]) for n in numbers] for row in rows] for rows in (before, after)
    )


@pytest.mark.parametrize("name", QUERIES)
def test_psql_can_set_each_parameter(history: History, name: str) -> None:
    """`limit`, say, is a word that SET does not take."""
    file = sql_directory() / "audit" / f"{name}.sql"
    defaults = {p.name: p.default for p in audit.query(name).parameters if p.default is not None}
    whole = _psql(history.url, file, _params(history, name))
    assert len(_psql(history.url, file, {**defaults, **_params(history, name)})) == len(whole)
    rest = {p.name: "none" for p in audit.query(name).parameters if p.name not in defaults}
    _psql(history.url, file, {**rest, **_params(history, name)})


@pytest.mark.parametrize("name", QUERIES)
def test_a_parameter_is_used(history: History, name: str) -> None:
    """Given its default it changes nothing; given something else it leaves less."""
    params = _params(history, name)
    whole = history.ask(name, **params)
    query = audit.query(name)
    defaults = {p.name: p.default for p in query.parameters if p.default is not None}
    same = _fixed(history.ask(name, **defaults, **params))
    assert same in (_fixed(whole), _fixed(history.ask(name, **params)))  # a minute may have ended
    if name == "double_starts":
        return  # it is empty whatever is given
    for parameter in query.parameters:
        less = {"since": "0 s", "lines": "1"}.get(parameter.name, "0")
        rows = history.ask(name, **{**params, parameter.name: less})
        assert len(rows) < len(whole) or _zeros(rows), parameter.name


# -- what they say ----------------------------------------------------------------------------


def test_due_now(history: History) -> None:
    by_kind = {(row["queue"], row["kind"]): row for row in history.ask("due_now")}
    orphan = by_kind["default", "orphan"]
    assert (orphan["due"], orphan["scheduled"], orphan["workers"]) == (3, 2, 0)
    assert 600 <= orphan["longest_wait"].total_seconds() < 3600
    assert by_kind["paused", "charge"]["paused_since"] is not None
    held = by_kind["default", "held"]
    assert (held["due"], held["running"], held["workers"]) == (0, 1, 1)
    assert set(by_kind) == {("default", "orphan"), ("paused", "charge"), ("default", "held")}


def test_oldest_due(history: History) -> None:
    rows = history.ask("oldest_due")
    ids = [*history.ids["orphan"][:3], *history.ids["paused"]]
    assert [row["id"] for row in rows] == [str(id_) for id_ in ids]
    assert [row["why_not"] for row in rows] == [
        *["no live worker serves it"] * 3,
        "it is paused",
    ]
    assert len(history.ask("oldest_due", lines=2)) == 2


def test_dead_rows(history: History) -> None:
    rows = history.ask("dead_rows")
    assert sorted(int(row["id"]) for row in rows) == history.ids["hopeless"]
    assert {(row["error_type"], row["message"], row["attempts"]) for row in rows} == {
        ("PermanentError", "card expired", 1)
    }
    assert all(row["fingerprint"].startswith("PermanentError@") for row in rows)
    assert history.ask("dead_rows", kind="charge") == []


def test_errors_top(history: History) -> None:
    rows = {row["message"]: row for row in history.ask("errors_top")}
    bank = rows["the bank hung up"]
    assert (bank["failures"], bank["rows_hit"], bank["retried"], bank["dead"]) == (2, 2, 2, 0)
    assert bank["kinds"] == ["flaky"]
    assert int(bank["example_row"]) in history.ids["flaky"]
    assert rows["card expired"]["dead"] == 2
    assert rows["the worker that ran it is gone"]["crashed"] == 2


@pytest.mark.parametrize(
    ("kind", "outcomes"),
    [
        ("charge", ["done"]),
        ("flaky", ["retry", "done"]),
        ("hopeless", ["dead"]),
        ("snoozer", ["snooze", "done"]),
        ("unwanted", ["cancelled"]),
        ("session", ["retry", "retry", "done"]),
        ("killer", ["crashed", "done"]),
        ("frozen", ["crashed", "lost", "done"]),
        ("long", ["released", "done"]),
        ("orphan", []),
        ("held", ["running"]),
    ],
)
def test_attempts_of(history: History, kind: str, outcomes: list[str]) -> None:
    for row in history.ids[kind]:
        attempts = history.ask("attempts_of", row=row)
        assert [attempt["outcome"] for attempt in attempts] == outcomes
        assert all(attempt["took"].total_seconds() >= 0 for attempt in attempts)
        assert all(attempt["started_at"] for attempt in attempts)
        tokens = [attempt["token"] for attempt in attempts]
        assert tokens == sorted(tokens)


def test_timeline(history: History) -> None:
    [frozen] = history.ids["frozen"]
    rows = history.ask("timeline", row=frozen)
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    events = [(row["event"], row["attempt"], row["who"]) for row in rows]
    assert events == [
        ("enqueued", None, None),
        ("started", 1, "frozen"),
        ("worker gone", None, "frozen"),
        ("crashed", 1, "frozen"),
        ("started", 2, "steady"),
        ("done", 2, "steady"),
        ("lost", 1, "frozen"),
    ]
    last = history.ask("timeline", row=history.ids["orphan"][-1])[-1]
    assert last["event"] == "due later"
    assert history.ask("timeline", row=history.ids["held"][0])[-1]["event"] == "running"
    assert history.ask("timeline", row=10**12) == []


def test_who_ran(history: History) -> None:
    rows = {(row["worker"], row["kind"]): row for row in history.ask("who_ran")}
    assert rows["steady", "charge"]["done"] == 20
    assert rows["steady", "flaky"]["retried"] == rows["steady", "flaky"]["done"] == 2
    assert rows["steady", "hopeless"]["dead"] == 2
    assert rows["steady", "snoozer"]["other"] == 2
    assert rows["killed", "killer"]["crashed"] == 1
    frozen = rows["frozen", "frozen"]
    assert (frozen["runs"], frozen["crashed"], frozen["lost"], frozen["done"]) == (1, 1, 1, 0)
    assert {worker for worker, _ in rows} == {"steady", "killed", "frozen"}


def test_worker_history(history: History) -> None:
    rows = history.ask("worker_history")
    by_name = {row["worker"]: row for row in rows}
    for name in ("killed", "frozen"):
        first = [row for row in rows if row["worker"] == name][-1]
        assert (first["state"], first["left_behind"]) == ("gone", 1)
        assert first["last_beat"].total_seconds() > 1  # its lease
    again, first = (row for row in rows if row["worker"] == "frozen")
    assert (again["state"], first["refused"]) == ("silent", 1)
    assert by_name["steady"]["state"] == "stopped"
    assert by_name["steady"]["ended_at"] is not None
    assert by_name["holder"]["state"] == "running"


def test_throughput_by_minute(history: History) -> None:
    rows = history.ask("throughput_by_minute")
    assert len(rows) == 61
    done = {
        "charge": 20,
        "flaky": 2,
        "snoozer": 2,
        "session": 2,
        "killer": 1,
        "frozen": 1,
        "long": 2,
    }
    assert sum(row["done"] for row in rows) == sum(done.values())
    assert sum(row["retried"] for row in rows) == 2 + 4
    assert sum(row["dead"] for row in rows) == 2
    assert sum(row["crashed"] for row in rows) == 2
    assert sum(row["other"] for row in rows) == 2 + 2 + 2  # snoozed, cancelled, released
    busy = max(rows, key=lambda row: row["done"])
    assert busy["mean_run_ms"] >= 0
    assert busy["mean_wait_ms"] >= 0
    flaky = history.ask("throughput_by_minute", kind="flaky")
    assert sum(row["done"] for row in flaky) == 2


def test_throughput_reads_rolled_up_minutes_once(history: History) -> None:
    """The same figures whether the stats chore has been or not."""
    # The chore rolls up minutes that are over: let this one be.
    rollup = statement("chores/stats").replace("date_trunc('minute', now())", "now()")
    rollup = rollup.replace("interval '2 minutes'", "interval '10 minutes'")
    later = (
        "insert into worker.stats "
        "select max(minute) + interval '3 minutes', 'jobs', 'default', 'other', 'done', 1 "
        "from worker.stats"
    )
    with psycopg.connect(history.url) as connection:
        figures = [_charged(connection)]
        send(connection, rollup)
        assert connection.execute("select count(*) from worker.stats").fetchone() != (0,)
        figures.append(_charged(connection))  # the last minutes are still read from the rows
        connection.execute(later)
        figures.append(_charged(connection))
        connection.execute("delete from worker.jobs_finished")
        figures.append(_charged(connection))
        connection.rollback()
    assert figures == [20] * 4


def _charged(connection: psycopg.Connection) -> int:
    _, rows = audit.run(connection, "throughput_by_minute", kind="charge")
    return int(sum(row[1] for row in rows))


# -- double_starts ------------------------------------------------------------------------------


def test_nothing_started_twice(history: History) -> None:
    """Though rows were retried, released, swept, and one ran on in a frozen worker."""
    assert history.ask("double_starts") == []


def test_what_gave_a_row_up_may_lie_before_the_time_looked_at(history: History) -> None:
    """The frozen worker's result came after its row had been swept and run elsewhere."""
    with psycopg.connect(history.url) as connection:  # in one transaction: now() stands still
        row = connection.execute(
            "select now() - ended_at - interval '0.1 ms' from worker.attempts "
            "where row_key = %s and outcome = 'crashed'",
            [str(history.ids["frozen"][0])],
        ).fetchone()
        assert row is not None
        columns, lines = audit.run(connection, "who_ran", kind="frozen", since=row[0])
        counts = [(line[columns.index("crashed")], line[columns.index("lost")]) for line in lines]
        assert counts == [(0, 1), (0, 0)]  # only what came after the sweep is seen
        assert audit.run(connection, "double_starts", since=row[0])[1] == []


@pytest.fixture
def pair(pg: psycopg.Connection) -> tuple[int, int]:
    """Two workers that claim by our hand."""
    return register(pg, "ann", ["charge"]), register(pg, "ben", ["charge"])


def test_a_row_taken_from_a_running_worker(pg: psycopg.Connection, pair: tuple[int, int]) -> None:
    """By somebody's UPDATE, which is the way it happens."""
    ann, ben = pair
    [row] = enqueue(pg, "charge")
    [(_, token)] = claim(pg, ann, "charge")
    pg.execute("update worker.jobs set owner = null where id = %s", [row])
    [(_, next_token)] = claim(pg, ben, "charge")
    assert _done(pg, ben, row, next_token) == [row]
    assert _done(pg, ann, row, token) == []
    _refuse(pg, ann, row, token, 60_000)
    assert _findings(pg) == [("taken", str(row), token, "ann", next_token, "ben")]


def test_claims_that_overlap(pg: psycopg.Connection, pair: tuple[int, int]) -> None:
    """As after a failover to a standby that had not seen the second claim."""
    ann, ben = pair
    [row] = enqueue(pg, "charge")
    [(_, token)] = claim(pg, ann, "charge")
    before = pg.execute("select owner, token, attempt, claimed_at from worker.jobs").fetchone()
    pg.execute("update worker.jobs set owner = null where id = %s", [row])
    [(_, next_token)] = claim(pg, ben, "charge")
    assert before is not None
    restore = "update worker.jobs set (owner, token, attempt, claimed_at) = (%s, %s, %s, %s)"
    pg.execute(restore, before)
    assert _retry(pg, ann, row, token) == [row]
    assert _findings(pg) == []  # the second has not been heard of again
    assert _done(pg, ben, row, next_token) == []
    _refuse(pg, ben, row, next_token, 60_000)
    assert ("overlap", str(row), token, "ann", next_token, "ben") in _findings(pg)


def test_one_claim_that_two_workers_ended(pg: psycopg.Connection, pair: tuple[int, int]) -> None:
    """As after a failover that lost the first claim: its token was given out again."""
    ann, ben = pair
    [row] = enqueue(pg, "charge")
    [(_, token)] = claim(pg, ann, "charge")
    pg.execute("update worker.jobs set owner = null, token = 0, attempt = 0, claimed_at = null")
    assert claim(pg, ben, "charge") == [(row, token)]
    assert _done(pg, ben, row, token) == [row]
    assert _done(pg, ann, row, token) == []
    _refuse(pg, ann, row, token, 50)
    assert [finding[:3] for finding in _findings(pg)] == [("two workers", str(row), token)]


def test_one_claim_with_two_results(pg: psycopg.Connection, pair: tuple[int, int]) -> None:
    """By a settle without its fence."""
    ann, _ = pair
    [row] = enqueue(pg, "charge")
    [(_, token)] = claim(pg, ann, "charge")
    assert _retry(pg, ann, row, token) == [row]
    unfenced = (
        statement("settle/done").replace("w.owner = $3", "true").replace("j.owner = $3", "true")
    )
    [accepted] = send(pg, unfenced, [[row], [token], ann, [5], [None]])
    assert accepted[0] == row
    assert [finding[:3] for finding in _findings(pg)] == [("settled twice", str(row), token)]


def _findings(pg: psycopg.Connection) -> list[tuple[Any, ...]]:
    columns, rows = audit.run(pg, "double_starts")
    wanted = ("finding", "row_key", "token", "worker", "next_token", "next_worker")
    return [tuple(row[columns.index(column)] for column in wanted) for row in rows]


def _done(pg: psycopg.Connection, worker: int, row: int, token: int) -> list[int]:
    rows = send(pg, statement("settle/done"), [[row], [token], worker, [5], [None]])
    return [found[0] for found in rows]


def _retry(pg: psycopg.Connection, worker: int, row: int, token: int) -> list[int]:
    fault: list[Any] = [["TimeoutError"], ["too slow"], ["TimeoutError@bank"], [None]]
    values = [[row], [token], worker, ["retry"], [None], [0.0], [0], [5], *fault]
    return [found[0] for found in send(pg, statement("settle/other"), values)]


def _refuse(pg: psycopg.Connection, worker: int, row: int, token: int, run_ms: int) -> None:
    """What a worker writes when its result was not accepted."""
    values = [["jobs"], [str(row)], ["default"], ["charge"], [1], [token], [worker], [run_ms]]
    send(pg, statement("settle/lost"), [*values, ["done"]])


# -- what they read ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [q.name for q in audit.queries() if "duerow.since" in q.sql])
def test_days_that_nobody_asked_for_are_not_read(history: History, name: str) -> None:
    old = "select worker.ensure_partitions(%s, %s, 0, now() - interval '20 days')"
    with psycopg.connect(history.url) as connection:
        connection.execute(old, ["jobs_finished", "finished_at"])
        connection.execute(old, ["attempts", "ended_at"])
        day = connection.execute("select to_char(now() - interval '15 days', 'YYYYMMDD')")
        row = day.fetchone()
        assert row is not None
        explain = "explain (analyze, format json) " + audit.query(name).sql
        plan = connection.execute(explain.encode()).fetchone()
        connection.rollback()
    assert plan is not None
    nodes = list(_nodes(plan[0][0]["Plan"]))
    read = {node.get("Relation Name", "") for node in nodes if node["Actual Loops"]}
    assert any(relation.startswith(("jobs_finished_2", "attempts_2")) for relation in read)
    assert not {relation for relation in read if relation.endswith(row[0])}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


# -- running them --------------------------------------------------------------------------------


def test_it_cannot_write(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = audit.AuditQuery("writes", "?", (), "delete from worker.jobs returning id")
    monkeypatch.setattr(audit, "_all", lambda: {"writes": writes})
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        audit.run(history.connection, "writes")


def test_it_takes_no_longer_than_allowed(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps = audit.AuditQuery("sleeps", "?", (), "select pg_sleep(10)")
    monkeypatch.setattr(audit, "_all", lambda: {"sleeps": sleeps})
    with pytest.raises(DuerowError, match=r"longer than 0\.1 s"):
        audit.run(history.connection, "sleeps", timeout=0.1)


def test_it_leaves_the_callers_transaction_as_it_was(history: History) -> None:
    with psycopg.connect(history.url) as connection:
        connection.execute("create temporary table mine (a int)")
        audit.run(connection, "dead_rows", kind="hopeless")
        connection.execute("insert into mine values (1)")
        setting = connection.execute("select current_setting('duerow.kind', true)").fetchone()
        assert setting in ((None,), ("",))
        assert connection.execute("show statement_timeout").fetchone() == ("0",)
        assert connection.execute("select a from mine").fetchone() == (1,)


def test_a_name_that_is_none(history: History) -> None:
    with pytest.raises(NotFound, match=r"did you mean timeline"):
        audit.run(history.connection, "timelime")


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("timeline", {}, "needs the parameter 'row'"),
        ("timeline", {"row": ""}, "needs the parameter 'row'"),
        ("timeline", {"row": "seven"}, 'invalid input syntax for type bigint: "seven"'),
        ("errors_top", {"since": "yesterday-ish"}, "invalid input syntax for type interval"),
        ("errors_top", {"lines": -1}, "LIMIT must not be negative"),
        ("due_now", {"row": 7}, "has no parameter 'row'"),
        ("due_now", {"queue": "x\x00"}, "parameter has a value that does not fit"),
    ],
)
def test_a_parameter_that_does_not_fit(
    history: History, name: str, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        audit.run(history.connection, name, **params)


def test_without_the_schema(admin: psycopg.Connection) -> None:
    with pytest.raises(SchemaError, match="worker db migrate"):
        audit.run(admin, "due_now")


def test_the_documentation_shows_each_query(history: History) -> None:
    page = (ROOT / "docs" / "audit.md").read_text("utf-8")
    for name in QUERIES:
        _, heading, section = page.partition(f"\n### {name}\n")
        assert heading, name
        sample = section.partition("```\n")[2].partition("\n```")[0]
        header = sample.splitlines()[1]
        columns, _ = audit.run(history.connection, name, **_params(history, name))
        assert re.split(r"\s+\|\s+", header.strip()) == columns


@pytest.mark.process
def test_the_documentation_is_typed(history: History) -> None:
    shell = Shell(ROOT, DATABASE_URL=history.url)
    typed = [c for block in blocks("docs/audit.md", "console") for c in commands(block)]
    assert len(typed) == 7
    for command in typed:
        shell.type(command)


def _params(history: History, name: str) -> dict[str, object]:
    required = [p.name for p in audit.query(name).parameters if p.required]
    return {"row": history.ids["frozen"][0]} if required else {}


def _fixed(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """What does not change with the time of asking."""
    return [[value for value in row.values() if isinstance(value, str | int)] for row in rows]


def _zeros(rows: list[dict[str, Any]]) -> bool:
    return all(not value for row in rows for key, value in row.items() if key != "minute")


def _psql(url: str, file: Path, params: dict[str, object]) -> list[list[str]]:
    psql = shutil.which("psql") or str(Path(local_binaries().directory) / "psql")
    command = [psql, url, "--no-psqlrc", "--quiet", "--csv", "--set", "ON_ERROR_STOP=1"]
    for name, value in params.items():
        command += ["--command", f"set duerow.{name} = '{value}'"]
    answer = subprocess.run(
        [*command, "--file", str(file)], capture_output=True, text=True, check=True, timeout=120
    )
    return list(csv.reader(io.StringIO(answer.stdout)))
