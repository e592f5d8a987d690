-- A user's table, and the witness of what happens to it. A row that is not due any more has ended:
-- that is recorded as a delete, which it is in worker.jobs.
create table chaos_rows (
    id     uuid primary key default gen_random_uuid(),
    number bigint generated always as identity unique,
    due_at timestamptz,
    kind   text not null,
    ms     float8 not null,
    fails  integer not null,
    note   integer not null default 0
);

create or replace function chaos.record_row() returns trigger language plpgsql as $$
declare
    ended boolean := tg_op = 'UPDATE' and (new.due_at is null or new.duerow_state is not null);
begin
    if tg_op = 'INSERT' then
        insert into chaos.changes (source, key, what, new_token, new_attempt, new_crashes)
        values (tg_table_name, new.id, 'INSERT', new.duerow_token, new.duerow_attempt, new.duerow_crashes);
    elsif ended and (old.due_at is null or old.duerow_state is not null) then
        null;
    elsif ended then
        insert into chaos.changes (source, key, what, old_owner, old_token, old_attempt, old_crashes)
        values (tg_table_name, new.id, 'DELETE', old.duerow_owner, old.duerow_token, old.duerow_attempt,
                old.duerow_crashes);
    elsif (old.duerow_owner, old.duerow_token, old.duerow_attempt, old.duerow_crashes)
          is distinct from (new.duerow_owner, new.duerow_token, new.duerow_attempt, new.duerow_crashes) then
        insert into chaos.changes (source, key, what, old_owner, new_owner, old_token, new_token,
                                   old_attempt, new_attempt, old_crashes, new_crashes)
        values (tg_table_name, new.id, 'UPDATE', old.duerow_owner, new.duerow_owner, old.duerow_token,
                new.duerow_token, old.duerow_attempt, new.duerow_attempt, old.duerow_crashes, new.duerow_crashes);
    end if;
    return null;
end
$$;

create or replace function chaos.record_adopted(adopted regclass) returns void language plpgsql as $$
begin
    execute format('create trigger chaos_record after insert or update on %s
                    for each row execute function chaos.record_row()', adopted);
end
$$;
