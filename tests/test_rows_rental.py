"""A database with a life of its own: films, customers, rentals and payments, with triggers, foreign
keys, partitions and generated columns. Its rental table is adopted, and worked on while other
traffic writes it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import decimal
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.adopted import adopt
from tests.facts import until
from tests.workers import Running, running
from worker import App, Context, Retry
from worker.events import RowsClaimed, RowSettled, ServiceFailed, SourceFailed
from worker.tables.bookkeeping import NAMES

SCHEMA = """
create schema shop;
create table shop.film (
    film_id     integer generated always as identity primary key,
    title       text not null,
    daily_fee   numeric(6, 2) not null default 1.50 check (daily_fee >= 0),
    words       tsvector generated always as (to_tsvector('english', title)) stored
);
create table shop.customer (
    customer_id integer generated always as identity primary key,
    first_name  text not null,
    last_name   text not null,
    full_name   text generated always as (first_name || ' ' || last_name) stored,
    active      boolean not null default true,
    updated_at  timestamptz not null default now()
);
create table shop.inventory (
    inventory_id integer generated always as identity primary key,
    film_id      integer not null references shop.film
);
create table shop.rental (
    rental_id    bigint generated always as identity primary key,
    rented_at    timestamptz not null default now(),
    inventory_id integer not null references shop.inventory,
    customer_id  integer not null references shop.customer on update cascade,
    returned_at  timestamptz,
    remind_at    timestamptz,
    kept         interval generated always as (returned_at - rented_at) stored,
    remarks      text,
    version      integer not null default 1,
    updated_at   timestamptz not null default now(),
    unique (rented_at, inventory_id, customer_id),
    check (returned_at is null or returned_at >= rented_at)
);
create index on shop.rental (customer_id);
create index on shop.rental (inventory_id);
create table shop.payment (
    payment_id bigint generated always as identity,
    rental_id  bigint not null references shop.rental on delete cascade,
    paid_at    timestamptz not null default now(),
    amount     numeric(8, 2) not null check (amount > 0),
    reference  uuid not null,
    primary key (payment_id, paid_at),
    unique (reference, paid_at)
) partition by range (paid_at);
create table shop.payment_old partition of shop.payment
    for values from (minvalue) to ('2026-01-01');
create table shop.payment_new partition of shop.payment
    for values from ('2026-01-01') to (maxvalue);
create index on shop.payment (rental_id);

create table shop.audit (
    audit_id  bigint generated always as identity primary key,
    at        timestamptz not null default clock_timestamp(),
    who       text not null,
    operation text not null,
    rental_id bigint not null,
    changed   jsonb not null,
    before    jsonb
);
create table shop.statements (who text, operation text, rows bigint);

create function shop.touch() returns trigger language plpgsql as $$
begin
    new.updated_at := clock_timestamp();
    new.version := old.version + 1;
    return new;
end $$;
create function shop.record() returns trigger language plpgsql as $$
begin
    insert into shop.audit (who, operation, rental_id, changed, before)
    select current_setting('application_name'), tg_op, coalesce(new.rental_id, old.rental_id),
           coalesce(jsonb_object_agg(n.key, n.value)
                    filter (where n.value is distinct from o.value), '{}'),
           to_jsonb(old)
      from jsonb_each(coalesce(to_jsonb(new), to_jsonb(old))) n
      left join jsonb_each(to_jsonb(old)) o using (key);
    return null;
end $$;
create function shop.count_statement() returns trigger language plpgsql as $$
begin
    insert into shop.statements
    select current_setting('application_name'), tg_op, count(*) from written;
    return null;
end $$;
create trigger touch before update on shop.rental for each row execute function shop.touch();
create trigger record after insert or update or delete on shop.rental
    for each row execute function shop.record();
create trigger count_statement after update on shop.rental
    referencing new table as written for each statement execute function shop.count_statement();

insert into shop.film (title) select 'The Return of Film ' || i from generate_series(1, 50) i;
insert into shop.inventory (film_id) select 1 + i % 50 from generate_series(1, 400) i;
insert into shop.customer (first_name, last_name)
    select 'First' || i, 'Last' || i from generate_series(1, 80) i;
insert into shop.rental (rented_at, inventory_id, customer_id, remind_at)
    select now() - interval '9 days' + i * interval '1 min', 1 + i % 400, 1 + i % 80,
           now() - interval '12 h' + i * interval '1 s'
      from generate_series(1, 400) i;
"""
WHERE = "returned_at is null"
TRAFFIC = 300  # transactions of each of two clients


@dataclasses.dataclass
class Rental:
    rental_id: int
    customer_id: int
    remind_at: dt.datetime


def shop() -> App:
    """Reminds of rentals that are overdue, and charges a fee, once a day until they are returned.
    Every tenth call fails at first."""
    app = App()

    @app.rows(
        "rentals",
        table="shop.rental",
        key="rental_id",
        due="remind_at",
        where=WHERE,
        every=dt.timedelta(days=1),
        tenant="customer_id",
    )
    async def remind(rental: Rental, context: Context, session: asyncpg.Connection) -> None:
        if rental.rental_id % 10 == 0 and context.attempt == 1:
            raise Retry("the mail server is away", after=0.05)
        await session.execute(
            "insert into shop.payment (rental_id, amount, reference)"
            " select $1, daily_fee, $2::text::uuid from shop.film"
            " join shop.inventory using (film_id) join shop.rental using (inventory_id)"
            " where rental_id = $1",
            rental.rental_id,
            context.idempotency_key,
        )

    return app


async def traffic(url: str, seed: int) -> None:
    """What the shop's own programs do: rent, return, prolong, remark, pay, forget, rename."""
    chance = random.Random(seed)
    client = await asyncpg.connect(url, server_settings={"application_name": f"client {seed}"})
    for i in range(TRAFFIC):
        rental = chance.randrange(1, 401)
        with contextlib.suppress(asyncpg.ForeignKeyViolationError, asyncpg.UniqueViolationError):
            match chance.choice(
                ["rent", "return", "prolong", "remark", "pay", "forget", "rename", "two"]
            ):
                case "rent":
                    await client.execute(
                        "insert into shop.rental (inventory_id, customer_id, remind_at)"
                        " values ($1, $2, now() + make_interval(secs => $3))",
                        *(chance.randrange(1, 401), chance.randrange(1, 81), chance.random()),
                    )
                case "return":
                    await client.execute(
                        "update shop.rental set returned_at = now() where rental_id = $1", rental
                    )
                case "prolong":
                    await client.execute(
                        "update shop.rental set remind_at = now() + interval '3 days'"
                        " where rental_id = $1",
                        rental,
                    )
                case "remark":
                    await client.execute(
                        "update shop.rental set remarks = $2 where rental_id = $1",
                        *(rental, f"{seed}/{i}"),
                    )
                case "pay":
                    await client.execute(
                        "insert into shop.payment (rental_id, paid_at, amount, reference)"
                        " values ($1, '2025-06-01', 5, gen_random_uuid())",
                        rental,
                    )
                case "forget":
                    await client.execute("delete from shop.rental where rental_id = $1", rental)
                case "rename":
                    await client.execute(
                        "update shop.customer set last_name = $2 where customer_id = $1",
                        *(chance.randrange(1, 81), f"Renamed{i}"),
                    )
                case "two":  # in a transaction that takes its time, in the same order always:
                    async with client.transaction():  # else the clients wait for one another
                        for one in sorted((rental, 401 - rental), reverse=True):
                            await client.execute(
                                "update shop.rental set remarks = 'two' where rental_id = $1", one
                            )
                            await asyncio.sleep(0.002)
    await client.close()


@pytest.fixture
async def busy_shop(db_url: str, apg: asyncpg.Connection) -> list[Running]:
    """Two workers that have gone over the shop's rentals while its clients wrote them."""
    await apg.execute(SCHEMA)
    await apg.execute("create table shop.kept as select * from shop.rental")
    await adopt(apg, "shop.rental", due="remind_at", where=WHERE)
    await apg.execute("truncate shop.audit, shop.statements")
    async with (
        running(shop(), db_url, poll_max=0.2, lease=30) as first,
        running(shop(), db_url, poll_max=0.2, lease=30) as second,
    ):
        await asyncio.gather(traffic(db_url, 1), traffic(db_url, 2))
        await until(lambda: _nothing_is_due(apg), within=60)
    return [first, second]


async def _nothing_is_due(apg: asyncpg.Connection) -> bool:
    return not await apg.fetchval(
        "select count(*) from shop.rental where returned_at is null"
        " and (duerow_owner is not null or remind_at <= now() + interval '1 s')"
    )


async def test_a_shop_that_is_open_while_its_rentals_are_worked_on(
    apg: asyncpg.Connection, busy_shop: list[Running]
) -> None:
    events = [event for worker in busy_shop for event in worker.seen.events]
    assert not [e for e in events if isinstance(e, ServiceFailed | SourceFailed)]
    await _no_column_of_theirs_changed_but_the_due_one(apg)
    await _triggers_fired_as_for_any_update(apg, events)
    await _foreign_keys_hold(apg)
    await _generated_columns_are_right(apg)
    await _each_due_time_was_charged_once(apg)


async def _no_column_of_theirs_changed_but_the_due_one(apg: asyncpg.Connection) -> None:
    """By the shop's own audit: what every update of ours changed."""
    ours = await apg.fetch(
        "select operation, changed from shop.audit where who like 'duerow%' order by audit_id"
    )
    assert len(ours) > 600  # so many even if the clients were through before the first claim
    assert {record["operation"] for record in ours} == {"UPDATE"}
    changed = {column for record in ours for column in json.loads(record["changed"])}
    by_their_own_trigger = {"updated_at", "version"}
    assert changed - set(NAMES) - by_their_own_trigger == {"remind_at"}
    before = await _checksum_of_what_no_client_wrote(apg, "kept")
    assert before == await _checksum_of_what_no_client_wrote(apg, "rental")
    assert before is not None
    assert before["rows"] > 20
    assert await apg.fetch(DIFFERS_FROM_WHAT_CLIENTS_WROTE) == []
    moved = await apg.fetchval(
        "select count(*) from shop.audit where who like 'duerow%' and changed ? 'remind_at'"
        " and (changed ->> 'remind_at')::timestamptz"
        "     <> (before ->> 'remind_at')::timestamptz + interval '1 day'"
    )
    assert moved == 0
    theirs = await apg.fetch(
        "select a.changed from shop.audit a where who like 'client%' and operation = 'UPDATE'"
    )
    of_ours = {column for record in theirs for column in json.loads(record["changed"])} & set(NAMES)
    assert not of_ours


# Theirs that nobody may have changed but them; the due time and what their own trigger sets apart.
KEPT = "rental_id, rented_at, inventory_id, customer_id, returned_at, remarks, kept"
DIFFERS_FROM_WHAT_CLIENTS_WROTE = f"""
with theirs as (
    select a.rental_id, c.key as column_name, c.value,
           row_number() over (partition by a.rental_id, c.key order by a.audit_id desc) as back
      from (select rental_id, 0 as audit_id, to_jsonb(k) as changed from shop.kept k
            union all
            select rental_id, audit_id, changed from shop.audit where who like 'client%') a
      cross join jsonb_each(a.changed) c
)
select r.rental_id, theirs.column_name, theirs.value, now_.value as value_now
  from shop.rental r
  cross join jsonb_each(to_jsonb(r)) now_
  left join theirs on theirs.rental_id = r.rental_id and theirs.column_name = now_.key and back = 1
 where now_.key = any (string_to_array('{KEPT}', ', ')) and now_.value is distinct from theirs.value
"""


async def _checksum_of_what_no_client_wrote(
    apg: asyncpg.Connection, table: str
) -> asyncpg.Record | None:
    return await apg.fetchrow(
        f"select count(*) as rows, md5(string_agg(({KEPT})::text, ' ' order by rental_id))"
        f" from shop.{table} r where rental_id <= 400 and not exists"
        " (select from shop.audit a where a.rental_id = r.rental_id and a.who like 'client%')"
    )


async def _triggers_fired_as_for_any_update(apg: asyncpg.Connection, events: list[Any]) -> None:
    claimed = sum(event.count for event in events if isinstance(event, RowsClaimed))
    settled = len([event for event in events if isinstance(event, RowSettled)])
    gone = await apg.fetchval(  # deleted in flight: settled without an update
        "select count(*) from shop.audit d where operation = 'DELETE'"
        " and before ->> 'duerow_owner' is not null"
    )
    rows = await apg.fetchval("select count(*) from shop.audit where who like 'duerow%'")
    assert rows == claimed + settled - gone
    in_order = await apg.fetchval(
        "select count(*) from shop.rental r where version <> 1 + (select count(*) from shop.audit a"
        "  where a.rental_id = r.rental_id and operation = 'UPDATE')"
    )
    assert in_order == 0, "the BEFORE trigger counted every update, ours and theirs"
    written, most = await apg.fetchrow(
        "select sum(rows), max(rows) from shop.statements where who like 'duerow%'"
    )
    assert written == rows, "once for each statement, with all of its rows"
    assert most > 1, "one call claims many rows"


async def _foreign_keys_hold(apg: asyncpg.Connection) -> None:
    dangling = await apg.fetchval(
        "select count(*) from shop.payment p left join shop.rental r using (rental_id)"
        " where r.rental_id is null"
    )
    assert dangling == 0
    assert await apg.fetchval("select count(*) from pg_constraint where not convalidated") == 0
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await apg.execute("update shop.rental set customer_id = 12345")
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await apg.execute("delete from shop.inventory")


async def _generated_columns_are_right(apg: asyncpg.Connection) -> None:
    wrong = await apg.fetchval(
        "select count(*) from shop.rental where kept is distinct from returned_at - rented_at"
    )
    wrong += await apg.fetchval(
        "select count(*) from shop.customer where full_name <> first_name || ' ' || last_name"
    )
    assert wrong == 0


async def _each_due_time_was_charged_once(apg: asyncpg.Connection) -> None:
    """A fee for each done attempt and none else, though one in ten was tried twice; those that were
    deleted since took their fees along."""
    fees = await apg.fetch(
        "select rental_id::text, count(*), count(distinct reference), max(amount) as fee"
        " from shop.payment where paid_at > '2026-01-01' group by 1"
    )
    done = await apg.fetch(
        "select row_key, count(*) from worker.attempts a where outcome = 'done'"
        " and exists (select from shop.rental r where r.rental_id::text = a.row_key) group by 1"
    )
    assert {r[0]: r[1] for r in fees} == {r[0]: r[1] for r in done}
    assert all(count == references for _, count, references, _ in fees)
    assert {record["fee"] for record in fees} == {decimal.Decimal("1.50")}
    retried = await apg.fetchval("select count(*) from worker.attempts where outcome = 'retry'")
    assert retried > 10


# -- row level security ---------------------------------------------------------------------------


@pytest.fixture
async def clerk(apg: asyncpg.Connection) -> AsyncIterator[str]:
    """A role that may write what it sees of the rentals; what that is, a policy says."""
    await apg.execute(SCHEMA)
    await adopt(apg, "shop.rental", due="remind_at", where=WHERE)
    role = f"clerk_{random.randrange(10**9)}"
    await apg.execute(
        f"create role {role} login;"
        f"grant usage on schema shop, worker to {role};"
        f"grant all on all tables in schema shop, worker to {role};"
        f"grant all on all sequences in schema shop, worker to {role};"
        "alter table shop.rental enable row level security;"
    )
    yield role
    await apg.execute(f"drop owned by {role}; drop role {role}")


async def _charged(apg: asyncpg.Connection) -> set[int]:
    """The customers that a fee was charged to."""
    rows = await apg.fetch(
        "select customer_id from shop.payment join shop.rental using (rental_id)"
    )
    return {record[0] for record in rows}


async def test_rows_that_a_policy_hides_do_not_run(
    db_url: str, apg: asyncpg.Connection, clerk: str
) -> None:
    await apg.execute(f"create policy own on shop.rental to {clerk} using (customer_id <= 10)")
    async with running(shop(), db_url.replace("duerow@", f"{clerk}@")):
        await until(lambda: _one_to_ten_are_charged(apg))
    assert await _charged(apg) == set(range(1, 11))
    touched = "select count(*) from shop.rental where customer_id > 10 and duerow_token <> 0"
    assert await apg.fetchval(touched) == 0


async def _one_to_ten_are_charged(apg: asyncpg.Connection) -> bool:
    return await _charged(apg) >= set(range(1, 11))


async def test_a_policy_that_refuses_the_claim_is_told_of(
    db_url: str, apg: asyncpg.Connection, clerk: str
) -> None:
    """It holds up its own table, and no other source; once it is mended all goes on."""
    await apg.execute(
        f"create policy own on shop.rental to {clerk} using (true) with check (customer_id > 1)"
    )
    app = shop()
    done = asyncio.Event()

    @app.handler
    async def neighbour() -> None:
        done.set()

    async with running(app, db_url.replace("duerow@", f"{clerk}@"), poll_max=0.2) as one:
        await until(lambda: one.seen.of(SourceFailed))
        failed = one.seen.of(SourceFailed)[0]
        assert failed.source == "rentals"
        assert 'violates row-level security policy for table "rental"' in failed.why
        assert 1 not in await _charged(apg)
        await apg.execute("select worker.enqueue('neighbour')")
        await until(done.is_set)
        await apg.execute("alter policy own on shop.rental with check (true)")
        await until(lambda: _nothing_is_due(apg), within=60)
    assert len(await _charged(apg)) == 80
