"""The claim stays a short walk over one index: whatever the statistics, the planner's switches, the
cached plan, other people's rows and dead rows."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from tests.facts import eventually
from tests.postgres import with_database
from tests.workers import drained
from worker import App
from worker.assets import sql_directory
from worker.events import RowsClaimed
from worker.link import HOT_PATH_PLANNER
from worker.statements import statement

CROWD = 100_000
POLICIES = sorted(path.stem for path in (sql_directory() / "claim").glob("*.sql"))

# How each file of sql/claim/ is called: parameter types, and parameters for one stream. A new claim
# policy takes what due.sql takes, or says here what it takes, and which index it walks.
DUE = (
    "text[], text[], smallint[], timestamptz[], bigint[], integer, bigint, boolean",
    "'{default}', '{work}', '{0}', '{-infinity}', '{0}', 100, 1, false",
)
CALLS = {
    "left": ("text[], text[], integer", "'{default}', '{work}', 100"),
    "streams": (
        "text[], text[], text[], text[], smallint[]",
        "'{default,default}', '{work,never}', '{}', '{}', '{}'",
    ),
    "span": ("text, text, smallint", "'default', 'work', '0'"),
    "tenants": (
        "text, text, smallint, text, integer, integer",
        "'default', 'work', '0', 'tenant 77', 100, 200",
    ),
    "fair": (
        "text, text, smallint, text[], integer[], integer, bigint, boolean",
        f"'default', 'work', '0', '{{{','.join(f'tenant {n}' for n in range(100))}}}',"
        " array_fill(10, array[100]), 100, 1, false",
    ),
    "one_each": (
        "text, text, smallint, text, integer, integer, bigint",
        "'default', 'work', '0', 'tenant 77', 100, 200, 1",
    ),
}
INDEXES = dict.fromkeys(("span", "tenants", "fair", "one_each"), "jobs_tenant")
FAIR = sorted(INDEXES)

Plan = dict[str, Any]


def calls(policy: str, **changes: str) -> tuple[str, str]:
    types, given = CALLS.get(policy, DUE)
    for old, new in changes.items():
        assert old in given
        given = given.replace(old, new)
    return types, given


@pytest.fixture(scope="module")
def crowded(
    admin: psycopg.Connection[Any], template_db: str, database_server: str
) -> Iterator[str]:
    """The URL of a database with 100,000 due rows, half of them one tenant's, the others those of
    500 more, and a worker whose id is 1."""
    name = f"duerow_crowded_{uuid.uuid4().hex[:12]}"
    admin.execute(
        sql.SQL("create database {} template {}").format(
            sql.Identifier(name), sql.Identifier(template_db)
        )
    )
    url = with_database(database_server, name)
    with psycopg.connect(url, autocommit=True) as connection:
        fill(connection, tenants="case when i % 2 = 0 then 0 else i % 1000 end")
        connection.execute("vacuum worker.jobs")
    yield url
    admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def crowd(crowded: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection as the claim's is, in a transaction that is rolled back."""
    with psycopg.connect(crowded) as connection:
        as_a_worker(connection)
        yield connection
        connection.rollback()
        connection.autocommit = True
        connection.execute("vacuum worker.jobs")  # what was rolled back costs the next test buffers


def fill(
    connection: psycopg.Connection[Any],
    kind: str = "work",
    count: int = CROWD,
    tenants: str = "null",
) -> None:
    """tenants: the number of the tenant of row i, in SQL."""
    connection.execute(
        "insert into worker.jobs (kind, args, tenant, due_at)"
        " select %s, jsonb_build_object('i', i, 'pad', repeat('x', 90)),"
        f"        'tenant ' || ({tenants.replace('%', '%%')}),"
        "        now() - make_interval(secs => %s - i)"
        " from generate_series(1, %s) i",
        [kind, count, count],
    )
    connection.execute(
        "insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease)"
        " values ('w', 'h', 1, '0', '{default}', '{work}', 4, '30 s')"
        " on conflict do nothing"
    )
    connection.execute("analyze worker.jobs")


def as_a_worker(connection: psycopg.Connection[Any]) -> None:
    for name, value in HOT_PATH_PLANNER.items():
        connection.execute(sql.SQL("set {} = {}").format(sql.Identifier(name), value))


def explain(
    connection: psycopg.Connection[Any], policy: str, options: str = "analyze", **changes: str
) -> Plan:
    """The plan that a worker's prepared statement gets; with its real rows and buffers."""
    types, given = calls(policy, **changes)
    name = f"plan_{uuid.uuid4().hex[:8]}"
    connection.execute(f"prepare {name} ({types}) as {statement(f'claim/{policy}')}")
    return plan_of(connection, f"{name}({given})", options)


def plan_of(connection: psycopg.Connection[Any], call: str, options: str = "analyze") -> Plan:
    given = f"{options}, buffers, timing off, format json" if options else "format json"
    record = connection.execute(f"explain ({given}) execute {call}").fetchone()
    assert record is not None
    plan: Plan = record[0][0]["Plan"]
    return plan


def nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def faults(plan: Plan, index: str = "jobs_due") -> list[str]:
    """What a plan does with worker.jobs that it must not. index: the one that it should walk."""
    found = []
    for node in nodes(plan):
        kind, relation = node["Node Type"], node.get("Relation Name")
        if kind in ("Sort", "Incremental Sort", "Hash Join", "Merge Join"):
            found.append(kind)
        if relation == "jobs" and kind not in (
            "Index Scan",
            "Index Only Scan",
            "Tid Scan",
            "ModifyTable",
        ):
            found.append(f"{kind} of jobs")
        if kind.startswith("Index") and relation == "jobs" and node["Index Name"] != index:
            found.append(f"{kind} of {node['Index Name']}")
        if node.get("Rows Removed by Filter", 0) > 1000:
            found.append(f"{kind} that throws {node['Rows Removed by Filter']} rows away")
    if not any(node.get("Index Name") == index for node in nodes(plan)):
        found.append(f"no use of {index}")
    return found


def reads_everything(policy: str) -> bool:
    return "Reads the whole live table" in statement(f"claim/{policy}")


# -- every file of the folder ---------------------------------------------------------------------


def test_the_folder_is_as_expected() -> None:
    assert {"due", "streams", "disown", *FAIR} <= set(POLICIES)
    assert [policy for policy in POLICIES if reads_everything(policy)] == ["disown"]


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if not reads_everything(policy)])
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("options", ["", "analyze"])
def test_an_index_walk(
    crowd: psycopg.Connection[Any], policy: str, mode: str, options: str
) -> None:
    crowd.execute(f"set plan_cache_mode = {mode}")
    plan = explain(crowd, policy, options)
    assert faults(plan, INDEXES.get(policy, "jobs_due")) == []
    if options:
        assert touched(plan) < 2000


def test_the_faults_can_be_found(crowd: psycopg.Connection[Any]) -> None:
    """A claim by a sort of everything is caught, so a plan without faults means something."""
    crowd.execute("reset all")
    crowd.execute(
        "prepare careless as select id from worker.jobs where owner is null and due_at <= now()"
        " order by priority, created_at limit 100"
    )
    seen = faults(plan_of(crowd, "careless"))
    assert "Sort" in seen
    assert "Seq Scan of jobs" in seen


def touched(plan: Plan) -> int:
    """Buffers."""
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def test_a_claim_touches_as_many_buffers_as_it_takes_rows(crowd: psycopg.Connection[Any]) -> None:
    few = touched(explain(crowd, "due", **{"100,": "10,"}))
    many = touched(explain(crowd, "due", **{"100,": "500,"}))
    assert few < 10 * 20
    assert many < 500 * 10


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_few_tenants_are_found_by_their_own_index(pg: psycopg.Connection[Any], mode: str) -> None:
    """Of two the small one's rows lie behind 20,000 of the large one's. To the planner the index on
    due times looks as good: every other row would do."""
    fill(pg, count=20_000, tenants="case when i > 19980 then 1 else 0 end")
    as_a_worker(pg)
    pg.execute(f"set plan_cache_mode = {mode}")
    pg.execute("begin")
    plan = explain(pg, "fair")
    assert faults(plan, INDEXES["fair"]) == []
    assert plan["Actual Rows"] == 20, "ten of each"
    assert touched(plan) < 500
    pg.execute("rollback; begin")
    types, given = calls("fair")
    plainly = statement("claim/fair").replace("least(w.due_at, 'infinity')", "w.due_at")
    pg.execute(f"prepare plainly ({types}) as {plainly}")
    assert faults(plan_of(pg, f"plainly({given})"), INDEXES["fair"]), "or this shows nothing"
    pg.execute("rollback")


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_one_row_of_each_is_one_probe_of_each(crowd: psycopg.Connection[Any], mode: str) -> None:
    crowd.execute(f"set plan_cache_mode = {mode}")
    plan = explain(crowd, "one_each")
    probes = [node["Actual Loops"] for node in nodes(plan) if "Index Name" in node]
    assert plan["Actual Rows"] == 100
    assert sum(probes) <= 100 + 5, "of gates, of the worker, and around the end"
    assert not [n for n in nodes(plan) if n["Node Type"] == "LockRows" and n["Actual Rows"] > 100]


# -- plans and statistics that are out of date ----------------------------------------------------


@pytest.fixture
def empty(pg: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A database whose statistics know no row, and will not be mended meanwhile."""
    pg.execute("alter table worker.jobs set (autovacuum_enabled = off)")
    fill(pg, count=0)
    return pg


def grown(connection: psycopg.Connection[Any], policy: str = "due") -> Plan:
    """A generic plan is made while the table is empty, then meets 100,000 rows."""
    types, given = calls(policy)
    connection.execute("set plan_cache_mode = force_generic_plan")
    connection.execute(f"prepare claim ({types}) as {statement(f'claim/{policy}')}")
    for _ in range(6):
        plan_of(connection, f"claim({given})")
    connection.execute(
        "insert into worker.jobs (kind, args, tenant)"
        " select 'work', '{}', 'tenant ' || case when i %% 2 = 0 then 0 else i %% 1000 end"
        " from generate_series(1, %s) i",
        [CROWD],
    )
    return plan_of(connection, f"claim({given})")


@pytest.mark.parametrize("policy", ["due", *FAIR])
def test_a_plan_that_was_made_while_the_table_was_empty(
    empty: psycopg.Connection[Any], policy: str
) -> None:
    as_a_worker(empty)
    plan = grown(empty, policy)
    assert faults(plan, INDEXES.get(policy, "jobs_due")) == []
    assert touched(plan) < 2000


def test_such_a_plan_is_bad_without_the_workers_settings(empty: psycopg.Connection[Any]) -> None:
    for _ in range(5):
        plan = grown(empty)
        if faults(plan):
            break
        # What other tests create and drop meanwhile can be so much that a session misses some of
        # it; then it forgets all its plans, and makes a good one.
        empty.execute("deallocate claim")
        empty.execute("truncate worker.jobs")
        fill(empty, count=0)
    assert faults(plan)
    assert touched(plan) > 2000


@pytest.mark.parametrize("policy", ["due", *FAIR])
@pytest.mark.parametrize("lie", ["no rows", "ten thousand times the rows", "one distinct queue"])
def test_statistics_that_lie(crowd: psycopg.Connection[Any], lie: str, policy: str) -> None:
    match lie:
        case "no rows":
            crowd.execute("update pg_class set reltuples = 0, relpages = 0 where relname = 'jobs'")
        case "ten thousand times the rows":
            crowd.execute("update pg_class set reltuples = 1e9 where relname = 'jobs'")
        case _:
            crowd.execute("delete from pg_statistic where starelid = 'worker.jobs'::regclass")
    plan = explain(crowd, policy)
    assert faults(plan, INDEXES.get(policy, "jobs_due")) == []
    assert touched(plan) < 2000


def test_the_settle_probes_once_per_row(crowd: psycopg.Connection[Any]) -> None:
    """1,000 results while 5,000 rows are claimed: not every claimed row per result."""
    claim = f"prepare claim ({DUE[0]}) as {statement('claim/due')}"
    crowd.execute(claim)
    rows = []
    for _ in range(10):
        call = DUE[1].replace("100,", "500,")
        rows += crowd.execute(f"execute claim({call})").fetchall()
    ids = "{" + ",".join(str(row[0]) for row in rows[:1000]) + "}"
    tokens = "{" + ",".join(["1"] * 1000) + "}"
    for mode in ("force_custom_plan", "force_generic_plan"):
        crowd.execute(f"set plan_cache_mode = {mode}")
        crowd.execute(
            f"prepare done_{mode} (bigint[], bigint[], bigint, integer[], text[])"
            f" as {statement('settle/done')}"
        )
        crowd.execute("savepoint before")
        call = f"done_{mode}('{ids}', '{tokens}', 1, array_fill(1, array[1000]),"
        plan = plan_of(crowd, f"{call} array_fill(null::text, array[1000]))")
        assert plan["Actual Rows"] == 1000
        assert not [
            node["Node Type"]
            for node in nodes(plan)
            if node.get("Relation Name") == "jobs"
            and node["Node Type"] not in ("Index Scan", "Tid Scan", "ModifyTable")
        ]
        assert touched(plan) < 1000 * 30
        crowd.execute("rollback to before")


# -- never more than n rows (whatever the planner's switches) --------------------------------------

SWITCHES = (
    "enable_seqscan",
    "enable_indexscan",
    "enable_bitmapscan",
    "enable_tidscan",
    "enable_nestloop",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_material",
    "enable_sort",
    "enable_hashagg",
)
NAIVE = """
update worker.jobs j
   set owner = $7, token = j.token + 1, attempt = j.attempt + 1, claimed_at = now()
 where j.id in (
    select w.id from worker.jobs w
     where w.queue = ($1)[1] and w.kind = ($2)[1] and w.priority = ($3)[1]
       and (w.due_at, w.id) > (($4)[1], ($5)[1]) and w.due_at <= now() and w.owner is null
     order by w.due_at, w.id
     limit $6
       for update skip locked)
returning j.id"""


@pytest.fixture
def few(pg: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Fifty rows in two priorities and no statistics, where plans differ most."""
    fill(pg, count=0)
    pg.execute(
        "insert into worker.jobs (kind, priority, tenant)"
        " select 'work', i %% 2, 'tenant ' || i %% 5 from generate_series(1, %s) i",
        [50],
    )
    return pg


STREAMS = "'{default,default}', '{work,work}', '{0,1}', '{-infinity,-infinity}', '{0,0}'"


def overruns(
    connection: psycopg.Connection[Any],
    text: str,
    n: int = 5,
    types: str = DUE[0],
    given: str = STREAMS,
    rest: str = "1, false",
) -> list[tuple[int, str]]:
    """How many rows a claim of n took, with which switches off, wherever it was not n."""
    connection.execute(
        "set jit = off"
    )  # a switched-off node costs 1e10: each plan would be compiled
    found = []
    for states in itertools.product(("on", "off"), repeat=len(SWITCHES)):
        off = [name for name, state in zip(SWITCHES, states, strict=True) if state == "off"]
        switches = ";".join(f"set local {name} = off" for name in off)
        claim = f"prepare claim ({types}) as {text}; execute claim({given}, {n}, {rest})"
        cursor = connection.execute(f"begin; {switches}; {claim}")
        while cursor.nextset():
            pass
        if cursor.rowcount != n:
            found.append((cursor.rowcount, " ".join(off)))
        connection.execute("rollback; deallocate claim")
    return found


def test_no_plan_takes_more_than_it_was_asked_for(few: psycopg.Connection[Any]) -> None:
    assert overruns(few, statement("claim/due")) == []


def test_no_plan_takes_more_of_a_tenant_than_it_was_asked_for(
    few: psycopg.Connection[Any],
) -> None:
    """Of three tenants with five due rows each: two, one and three."""
    types, _ = CALLS["fair"]
    given = "'default', 'work', 0::smallint, '{tenant 0,tenant 2,tenant 4,never}', '{2,1,3,9}'"
    text = statement("claim/fair").rstrip().rstrip(";")
    assert overruns(few, text, 5, types, given) == [], "two, one, and two of three"
    counted = (
        "select string_agg(tenant || ': ' || count, ', ' order by tenant)"
        " from (select tenant, count(*) from taken group by tenant) c"
    )
    for hint in ("enable_nestloop", "enable_indexscan", "enable_tidscan", "enable_sort"):
        with few.transaction(force_rollback=True):
            few.execute(f"set local {hint} = off")
            few.execute(f"prepare counted ({types}) as with taken as ({text}) {counted}")
            told = few.execute(f"execute counted({given}, 100, 1, false)").fetchone()
            assert told == ("tenant 0: 2, tenant 2: 1, tenant 4: 3",)
            few.execute("deallocate counted")


def test_no_plan_takes_more_than_one_row_of_each(few: psycopg.Connection[Any]) -> None:
    """Of five tenants, behind the second of them."""
    types, _ = CALLS["one_each"]
    given, text = "'default', 'work', 0::smallint, 'tenant 1'", statement("claim/one_each")
    assert overruns(few, text, 3, types, given, "200, 1") == []
    few.execute(f"prepare claim ({types}) as {text}")
    for n, taken in ((3, "234"), (9, "01234")):
        rows = few.execute(f"execute claim({given}, {n}, 200, 1)").fetchall()
        assert sorted(row[9] for row in rows) == [f"tenant {tenant}" for tenant in taken]


def test_the_usual_form_takes_more_under_some_plans(few: psycopg.Connection[Any]) -> None:
    """`id in (select ... limit n for update skip locked)`, in the very same test."""
    found = overruns(few, NAIVE)
    assert max(count for count, _ in found) > 5


# -- heap-only updates ----------------------------------------------------------------------------


async def test_claims_are_heap_only_updates(db_url: str, pg: psycopg.Connection[Any]) -> None:
    """Of a real worker, in a steady state: rows come, are claimed, settled and vacuumed."""
    app = App()

    @app.handler
    async def work(i: int, pad: str) -> None: ...

    claimed = 0
    for _ in range(5):
        fill(pg, count=2000)
        one = await drained(app, db_url, concurrency=50)
        claimed += sum(event.count for event in one.seen.of(RowsClaimed))
        pg.execute("vacuum worker.jobs")
    pg.execute("select pg_stat_force_next_flush()")
    given_back = claimed - 10_000  # by a worker that stood still, and claimed again
    updates, hot = eventually(lambda: _updates(pg, claimed + given_back))
    assert updates == claimed + given_back, "one update per row: the claim"
    assert hot / updates > 0.95, f"{hot} of {updates}"


def _updates(connection: psycopg.Connection[Any], at_least: int) -> tuple[int, int] | None:
    """(updates, heap-only ones) of worker.jobs, once that many are told."""
    told = connection.execute(
        "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'jobs'"
    ).fetchone()
    return told if told and told[0] >= at_least else None


# -- rows that are nobody's concern ---------------------------------------------------------------


def test_rows_of_other_kinds_are_not_even_visited(pg: psycopg.Connection[Any]) -> None:
    """10,000 of them, all due before ours and of a higher priority."""
    fill(pg, kind="foreign", count=10_000)
    pg.execute("update worker.jobs set priority = -1, due_at = due_at - interval '1 day'")
    fill(pg, kind="work", count=10)
    pg.execute("vacuum analyze worker.jobs")
    as_a_worker(pg)
    plan = explain(pg, "due")
    assert plan["Actual Rows"] == 10
    assert faults(plan) == []
    assert touched(plan) < 120
    for node in nodes(plan):
        assert node.get("Rows Removed by Filter", 0) == 0
        assert node["Actual Rows"] <= 10
    assert touched(explain(pg, "streams")) < 60


def test_the_claim_of_a_registered_kind_behind_many_of_another_is_quick(
    pg: psycopg.Connection[Any],
) -> None:
    """The same by the table alone: an index on due_at would have to walk over all of them."""
    fill(pg, kind="foreign", count=10_000)
    fill(pg, kind="work", count=10)
    pg.execute("create index by_due on worker.jobs (due_at) where owner is null")
    pg.execute("vacuum analyze worker.jobs")
    as_a_worker(pg)
    pg.execute(
        "prepare by_due as select id from worker.jobs"
        " where owner is null and kind = 'work' and due_at <= now() and due_at > '-infinity'"
        " order by due_at limit 10"
    )
    pg.execute("set enable_sort = off")
    walked = sum(node.get("Rows Removed by Filter", 0) for node in nodes(plan_of(pg, "by_due")))
    assert walked >= 10_000, "the count that must be 0 above"


def test_a_held_snapshot_and_its_dead_rows(pg: psycopg.Connection[Any], db_url: str) -> None:
    """Nobody may remove what one old snapshot can see. From the beginning a claim walks over all
    of it; above the floor over none."""
    fill(pg)
    with psycopg.connect(db_url) as holder:
        holder.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        holder.execute("select count(*) from worker.jobs")
        with pg.cursor(row_factory=dict_row) as cursor:
            cursor.execute("delete from worker.jobs where id <= %s returning due_at, id", [CROWD])
            last = max((row["due_at"], row["id"]) for row in cursor)
        fill(pg, count=0)
        pg.execute(
            "insert into worker.jobs (kind, args) select 'work', '{}' from generate_series(1, 1000)"
        )
        pg.execute("vacuum worker.jobs")
        as_a_worker(pg)
        above = {"{-infinity}": f"{{{last[0].isoformat()}}}", "'{0}', 100": f"'{{{last[1]}}}', 100"}
        pg.execute("begin")
        blind = touched(explain(pg, "due"))
        pg.execute("rollback; begin")
        floored = explain(pg, "due", **above)
        assert floored["Actual Rows"] == 100
        assert touched(floored) < 1000
        assert blind > 5 * touched(floored), "or this test shows nothing"
        pg.execute("rollback")


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_a_listing_of_streams_and_dead_rows(
    pg: psycopg.Connection[Any], db_url: str, mode: str
) -> None:
    """It goes over none of a stream that is known, and of others over none that lie in front."""
    fill(pg, count=20_000)
    with psycopg.connect(db_url) as holder:
        holder.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        holder.execute("select count(*) from worker.jobs")
        pg.execute("delete from worker.jobs")
        pg.execute("insert into worker.jobs (kind, priority) values ('work', -3), ('work', 4)")
        pg.execute("vacuum worker.jobs")
        as_a_worker(pg)
        pg.execute(f"set plan_cache_mode = {mode}")
        known = {"'{}', '{}', '{}'": "'{default}', '{work}', '{0}'"}
        told = explain(pg, "streams", **known)
        assert told["Actual Rows"] == 3, "one below, one above"
        assert touched(told) < 50
        assert touched(explain(pg, "streams")) > 500, "or this test shows nothing"
        pg.execute("insert into worker.jobs (kind) values ('work')")
        unknown = explain(pg, "streams")
        assert unknown["Actual Rows"] == 3
        assert touched(unknown) < 50


def test_every_file_has_a_header() -> None:
    """What it does, what it takes, what it gives."""
    for policy in POLICIES:
        text = statement(f"claim/{policy}")
        assert re.match(r"-- [A-Z].*\n", text), policy
        assert "-- takes " in text
        assert "-- gives " in text
