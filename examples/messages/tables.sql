-- The table as its owner made it: nothing in it is there for Duerow.
drop schema if exists example_messages cascade;
create schema example_messages;

create table example_messages.conversations (
    id                          bigint generated always as identity primary key,
    provider                    text not null,
    contact                     text not null,
    question                    integer not null default 1,
    open                        boolean not null default true,
    next_question_scheduled_for timestamptz
);
