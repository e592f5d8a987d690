-- The witness inside the database: every change of every live row, and what ended where.
-- Exists only in fault runs. Within one row `seq` is the order of the changes: the row's lock is
-- held from the change to the end of its transaction.
create schema chaos;

create table chaos.changes (
    seq         bigint generated always as identity primary key,
    at          timestamptz not null default clock_timestamp(),
    transaction bigint not null default txid_current(),
    source      text not null,
    key         text not null,
    what        text not null,
    old_owner   bigint,  new_owner   bigint,
    old_token   bigint,  new_token   bigint,
    old_attempt integer, new_attempt integer,
    old_crashes integer, new_crashes integer
);

-- What handlers write through the session that they are handed.
create table chaos.effects (
    source text not null,
    key    text not null,
    token  bigint not null
);

create function chaos.record() returns trigger language plpgsql as $$
begin
    insert into chaos.changes (source, key, what, old_owner, new_owner, old_token, new_token,
                               old_attempt, new_attempt, old_crashes, new_crashes)
    values ('jobs', coalesce(new.id, old.id), tg_op, old.owner, new.owner, old.token, new.token,
            old.attempt, new.attempt, old.crashes, new.crashes);
    return null;
end
$$;

create trigger chaos_record after insert or update or delete on worker.jobs
    for each row execute function chaos.record();
