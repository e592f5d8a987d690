-- The tables as their owner made them: nothing in them is there for Duerow.
drop schema if exists example_orders cascade;
create schema example_orders;
set search_path = example_orders;

create table clients (
    id   bigint primary key,
    name text not null
);

create table orders (
    id              bigint primary key,
    client_id       bigint not null references clients on delete cascade,
    tracking_number text not null unique,
    open            boolean not null default true,
    state           text,
    checked_at      timestamptz,
    checked_for     timestamptz,  -- the next_check_at for which that was
    next_check_at   timestamptz
);

reset search_path;
