-- The tables as their owner made them: nothing in them is there for Duerow.
drop schema if exists example_accounts cascade;
create schema example_accounts;
set search_path = example_accounts;

create table organisations (
    id   bigint primary key,
    name text not null
);

create table projects (
    id              bigint primary key,
    organisation_id bigint not null references organisations on delete cascade,
    name            text not null
);

create table accounts (
    id              bigint primary key,
    organisation_id bigint not null references organisations on delete cascade,
    project_id      bigint not null references projects on delete cascade,
    handle          text not null unique,
    active          boolean not null default true,
    videos          integer,
    refreshed_at    timestamptz,
    refresh_due_at  timestamptz
);

reset search_path;
