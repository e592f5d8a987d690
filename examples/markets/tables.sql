-- The tables as their owner made them: nothing in them is there for Duerow.
drop schema if exists example_markets cascade;
create schema example_markets;
set search_path = example_markets;

create table markets (
    id         bigint primary key,
    symbol     text not null unique,
    open       boolean not null default true,
    predict_at timestamptz
);

create table predictions (
    id          bigint generated always as identity primary key,
    market_id   bigint not null references markets on delete cascade,
    made_for    timestamptz not null,
    outcome     text not null,
    probability numeric not null
);
create index on predictions (market_id, made_for);

reset search_path;
