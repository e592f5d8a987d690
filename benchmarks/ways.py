"""The ways to claim rows of a user's own table, each with its table made anew.

The table has 20 columns in 1 KB, a key and four indexes of its own, one of them on the due column.
A run is an interval later again (recurring) or never (once); each attempt is on record, in
`worker.attempts` or `worker.jobs_finished`. `Own` and `Builtin` send what a worker sends. The
others are what we might have built; their SQL is here, and is no more than what they need.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import asyncpg

from tests import adopted
from worker.claim import Claimer
from worker.events import Events
from worker.link import HOT_PATH_PLANNER, Link, Outage
from worker.row import Row
from worker.source import Settlement, Source
from worker.sources.jobs import Jobs
from worker.tables.spec import TableSpec
from worker.transition import Transition
from worker.url import DatabaseURL

TABLE = "accounts"
WHERE = "status = 'active'"
DAY = dt.timedelta(days=1)
READS = ("id", "org_id", "name", "amount")  # by the handler

CREATE = f"""
create table {TABLE} (
    id bigint primary key, org_id bigint not null, project_id bigint not null, name text not null,
    email text not null, status text not null default 'active', next_at timestamptz,
    amount integer not null, currency text not null, country text not null, city text not null,
    street text not null, phone text not null, score float8 not null, flags integer not null,
    settings jsonb not null, created_at timestamptz not null, updated_at timestamptz not null,
    seen_at timestamptz, note text not null)"""
INDEXES = """
create index on accounts (org_id);
create index on accounts (email);
create index on accounts (created_at);
create index on accounts (next_at)"""
# One row. $1: id, $2: next_at.
VALUES = """
$1::bigint, mod($1, 1000), mod($1, 5000), 'name of ' || $1, 'user' || $1 || '@example.org',
'active', $2::timestamptz, mod($1, 500)::int, 'EUR', 'NL', 'Rotterdam',
'Coolsingel ' || mod($1, 300), '+31 10 ' || $1, random(), 7,
'{"language": "nl", "weekly": true}'::jsonb,
now() - make_interval(secs => $1), now(), null, repeat('x', 700)"""
INSERT = f"insert into {TABLE} values ({VALUES})"


def fill(rows: int, due: str) -> str:
    """due: SQL for a row's due time, which may use its number i."""
    values = VALUES.replace("$1", "i").replace("$2", f"({due})")
    return f"insert into {TABLE} select {values} from generate_series(1::bigint, {rows}) i"


class Way(Protocol):
    """A way to claim. hot_of: the table whose HOT updates count."""

    name: str
    hot_of: str

    async def make(self, connection: asyncpg.Connection) -> None:
        """Its tables, empty."""

    async def prepare(self, connection: asyncpg.Connection) -> None:
        """Whatever needs the rows that `fill` has made."""

    async def start(self, url: DatabaseURL, worker: int) -> None:
        """Connects, as a worker does: one link claims, one settles."""

    async def claim(self, limit: int) -> list[Any]: ...

    async def settle(self, rows: list[Any]) -> int:
        """How many rows of them were still ours."""

    async def close(self) -> None: ...


class Linked:
    """Two links, as a worker has them."""

    claiming: Link
    settling: Link
    worker: int

    async def start(self, url: DatabaseURL, worker: int) -> None:
        self.worker = worker
        outage = Outage(Events())
        self.claiming = Link("claim", url, outage, planner=HOT_PATH_PLANNER)
        self.settling = Link("settle", url, outage, planner=HOT_PATH_PLANNER)

    async def close(self) -> None:
        await self.claiming.close()
        await self.settling.close()


class Sourced(Linked):
    """What a worker does with a source of ours."""

    source: Source
    claimer: Claimer
    after: dt.timedelta | None

    async def claim(self, limit: int) -> list[Any]:
        return await self.claimer.step(limit, self.worker)

    async def settle(self, rows: list[Any]) -> int:
        batch = [Settlement(row, self._transition(row), 0.001) for row in rows]
        settled = 0
        for sql, params in self.source.settle(self.worker, batch):
            settled += len(await self.settling.fetch(sql, *params))
        return settled

    def _transition(self, row: Row) -> Transition:
        if self.after is None or row.occurrence is None:
            return Transition("done")
        return Transition("done", next_at=row.occurrence + self.after)


class Builtin(Sourced):
    """The reference: worker.jobs, with what the handler reads as arguments."""

    after = None
    hot_of = "worker.jobs"
    name = "worker.jobs, the reference"

    async def make(self, connection: asyncpg.Connection) -> None:
        await Bare().make(connection)
        await connection.execute("truncate worker.jobs, worker.jobs_finished")

    async def prepare(self, connection: asyncpg.Connection) -> None:
        await connection.execute(
            "insert into worker.jobs (kind, args, due_at) select 'refresh',"
            " jsonb_build_object('id', id, 'org_id', org_id, 'name', name, 'amount', amount),"
            f" next_at from {TABLE}"
        )
        await connection.execute("vacuum analyze worker.jobs")

    async def start(self, url: DatabaseURL, worker: int) -> None:
        await super().start(url, worker)
        self.source = Jobs([("default", "refresh")])
        self.claimer = Claimer(self.source, self.claiming, Events())


class Bare:
    """The user's table alone: what a write of theirs costs without us."""

    def __init__(self, fillfactor: int = 100) -> None:
        self.fillfactor = fillfactor
        self.name = f"the bare table, fillfactor {fillfactor}"

    async def make(self, connection: asyncpg.Connection) -> None:
        await connection.execute(f"drop table if exists {TABLE}; truncate worker.attempts")
        await connection.execute(f"{CREATE} with (fillfactor = {self.fillfactor})")
        await connection.execute(INDEXES)

    async def prepare(self, connection: asyncpg.Connection) -> None:
        pass


class Own(Sourced, Bare):
    """What we do: columns of ours in the user's table."""

    hot_of = TABLE
    spec = TableSpec(TABLE, TABLE, due="next_at", where=WHERE, tenant="org_id")

    def __init__(self, fillfactor: int, after: dt.timedelta | None = DAY) -> None:
        super().__init__(fillfactor)
        self.after = after
        self.name = f"own columns, fillfactor {fillfactor}, {_follows(after)}"

    async def make(self, connection: asyncpg.Connection) -> None:
        await super().make(connection)
        await adopted.adopt(connection, TABLE, due="next_at", where=WHERE)

    async def prepare(self, connection: asyncpg.Connection) -> None:
        self.source = await adopted.source(connection, self.spec, *READS)

    async def start(self, url: DatabaseURL, worker: int) -> None:
        await super().start(url, worker)
        self.claimer = Claimer(self.source, self.claiming, Events())


RECORD = """
    insert into worker.attempts
           (started_at, source, row_key, queue, kind, attempt, token, worker, outcome)
    select now(), 'accounts', id::text, 'accounts', 'accounts', 1, token, $1, 'done' from written"""


class Moved(Linked, Bare):
    """A visibility timeout: the claim moves the due time on, and that time is the fence. No column
    and no index of ours; attempts and owner are not to be seen in the row."""

    hot_of = TABLE
    _claim = f"""
update {TABLE} t set next_at = now() + interval '30 s'
 where ctid = any (array(
    select ctid from {TABLE} where next_at <= now() and {WHERE}
     order by next_at limit $1 for no key update skip locked))
returning id, next_at, org_id, name, amount"""
    _settle = f"""
with given as (
    select * from unnest($2::bigint[], $3::timestamptz[], $4::timestamptz[]) o(id, held, next)
), written as (
    update {TABLE} t set next_at = o.next
      from given o cross join lateral (
        select w.ctid from {TABLE} w where w.id = o.id and w.next_at = o.held limit 1) ours
     where t.ctid = ours.ctid and t.next_at = o.held
    returning t.id, 0 as token
), recorded as ({RECORD})
select id from written"""

    def __init__(self, fillfactor: int, after: dt.timedelta | None = DAY) -> None:
        super().__init__(fillfactor)
        self.after = after
        self.name = f"due moved at claim, fillfactor {fillfactor}, {_follows(after)}"

    async def claim(self, limit: int) -> list[Any]:
        return await self.claiming.fetch(self._claim, limit)

    async def settle(self, rows: list[Any]) -> int:
        nexts = [self.after and row["next_at"] + self.after for row in rows]
        ids, held = [row["id"] for row in rows], [row["next_at"] for row in rows]
        return len(await self.settling.fetch(self._settle, self.worker, ids, held, nexts))


class Rerouted(Link):
    """Sends what is meant for worker.jobs to the side table, which has its columns; the arguments
    are read from the user's row."""

    async def fetch(self, sql: str, *params: Any) -> list[Any]:
        return await super().fetch(_rerouted(sql), *params)


@cache
def _rerouted(sql: str) -> str:
    args = (
        "(select jsonb_build_object('id', u.id, 'org_id', u.org_id, 'name', u.name,"
        f" 'amount', u.amount)::text from {TABLE} u where u.id = j.id) as args"
    )
    return sql.replace("worker.jobs ", "side ").replace("j.args", args)


class Side(Sourced, Bare):
    """A narrow table beside the user's, a row for each that is to fall due, kept in step by
    triggers, and claimed by the statements of the built-in table.

    writes_due: whether the user's due column is written at success, as with own columns; otherwise
    the next due time stands in the side table alone, where the user must look for it.
    """

    hot_of = "side"
    _triggers = f"""
create or replace function follow() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into side (id, kind, due_at) values (new.id, 'refresh', new.next_at);
    elsif tg_op = 'DELETE' then
        delete from side where id = old.id;
    elsif new.next_at is null or new.status <> 'active' then
        delete from side where id = new.id;
    else
        update side set due_at = new.next_at where id = new.id and due_at <> new.next_at;
        if not found then
            insert into side (id, kind, due_at) values (new.id, 'refresh', new.next_at)
                on conflict do nothing;
        end if;
    end if;
    return null;
end $$;
create trigger follow_insert after insert on {TABLE} for each row
    when (new.next_at is not null and new.status = 'active') execute function follow();
create trigger follow_update after update of next_at, status, id on {TABLE} for each row
    when (old.next_at is distinct from new.next_at or old.status is distinct from new.status)
    execute function follow();
create trigger follow_delete after delete on {TABLE} for each row execute function follow();"""
    _settle = """
with given as (
    select *
      from unnest($2::bigint[], $3::bigint[], $4::timestamptz[], $5::timestamptz[])
           o(id, token, occurrence, next)
), written as (
    update side j set due_at = o.next, owner = null, claimed_at = null, attempt = 0
      from given o cross join lateral (
        select w.ctid from side w
         where w.id = o.id and w.token = o.token and w.owner = $1 limit 1) ours
     where j.ctid = ours.ctid and j.token = o.token and j.owner = $1
    returning j.id, j.token, o.occurrence, o.next
), recorded as ({record}){user}
select id from written"""
    _settle_user = f""", told as (
    update {TABLE} t set next_at = w.next
      from written w
     cross join lateral (select u.ctid from {TABLE} u where u.id = w.id limit 1) theirs
     where t.ctid = theirs.ctid and t.next_at = w.occurrence)"""
    reconcile = f"""
select count(*) from (
    select id, next_at from {TABLE} where next_at is not null and {WHERE}) u
  full join (select id, due_at from side) s using (id)
 where u.next_at is distinct from s.due_at"""

    def __init__(self, after: dt.timedelta | None = DAY, *, writes_due: bool = True) -> None:
        super().__init__(100)
        self.after = after
        self.writes_due = writes_due
        kept = "" if writes_due else ", due kept there"
        self.name = f"side table, {_follows(after)}{kept}"
        self._statement = self._settle.format(
            record=RECORD, user=self._settle_user if writes_due else ""
        )

    async def make(self, connection: asyncpg.Connection) -> None:
        await super().make(connection)
        await connection.execute(
            "drop table if exists side; create table side (like worker.jobs including all);"
            "alter table side set (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02,"
            " autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0)"
        )
        await connection.execute(self._triggers)

    async def prepare(self, connection: asyncpg.Connection) -> None:
        await connection.execute("vacuum analyze side")

    async def start(self, url: DatabaseURL, worker: int) -> None:
        await super().start(url, worker)
        self.source = Jobs([("default", "refresh")])
        self.claiming = Rerouted("claim", url, Outage(Events()), planner=HOT_PATH_PLANNER)
        if self.after is None:
            self.settling = Rerouted("settle", url, Outage(Events()), planner=HOT_PATH_PLANNER)
        self.claimer = Claimer(self.source, self.claiming, Events())

    async def settle(self, rows: list[Any]) -> int:
        if self.after is None:
            return await self._end(rows)
        ids, tokens = [row.key for row in rows], [row.token for row in rows]
        due = [row.due_at for row in rows]
        nexts = [moment + self.after for moment in due]
        return len(await self.settling.fetch(self._statement, self.worker, ids, tokens, due, nexts))

    async def _end(self, rows: Sequence[Row]) -> int:
        """By the built-in table's own statement; then the user's row, of which the trigger tells
        the side table, where there is nothing left to do."""
        settled = await super().settle(list(rows))
        if self.writes_due:
            await self.settling.fetch(
                f"update {TABLE} t set next_at = null"
                "  from unnest($1::bigint[], $2::timestamptz[]) o(id, due)"
                f" cross join lateral (select ctid from {TABLE} u where u.id = o.id limit 1) theirs"
                " where t.ctid = theirs.ctid and t.next_at = o.due",
                [row.key for row in rows],
                [row.due_at for row in rows],
            )
        return settled


def _follows(after: dt.timedelta | None) -> str:
    return "once" if after is None else "recurring"
