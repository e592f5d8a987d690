-- The table as its owner made it: nothing in it is there for Duerow.
drop schema if exists example_donations cascade;
create schema example_donations;

create table example_donations.donations (
    id             uuid primary key default gen_random_uuid(),
    donor          text not null,
    cents          integer not null,
    card           text not null,
    status         text not null default 'active',
    created_at     timestamptz not null default now(),
    next_charge_at timestamptz not null
);
