-- Schedules: what enqueues jobs by the clock.
--
-- A tick is one moment that a schedule names. Whoever decides a tick moves `next_at` on, writes the
-- tick down and enqueues its job in one statement, which asks that `next_at` is what it was when the
-- tick was found. So a tick is decided once, whatever dies, freezes or is cut off on the way.
--
-- The worker does the arithmetic of cron; `next_at` is null until it has. Those who write rows here
-- leave `next_at` alone: the triggers below see to it, and wake the workers.

-- Which schedules the code of a worker names. One of `origin` code ticks while a live worker names it.
alter table worker.workers add column schedules text[] not null default '{}';

create table worker.schedules (
    name           text primary key check (char_length(name) between 1 and 200),
    origin         text not null default 'operator' check (origin in ('code', 'operator')),
    -- when: one of cron, every, at
    cron           text,
    every          interval check (every >= '1 second' and extract(year from every) = 0 and extract(month from every) = 0),
    at             timestamptz check (isfinite(at)),
    tz             text not null default 'UTC',
    -- what
    kind           text not null check (kind <> ''),
    queue          text not null default 'default' check (queue <> ''),
    args           jsonb not null default '{}' check (jsonb_typeof(args) = 'object'),
    tick_as        text,  -- the argument that is given the time of the tick
    priority       smallint not null default 0,
    tenant         text,
    max_attempts   integer check (max_attempts > 0),
    -- how
    catch_up       text not null default 'one' check (catch_up in ('skip', 'one', 'all')),
    catch_up_limit integer not null default 100 check (catch_up_limit between 1 and 1000),
    overlap        text not null default 'skip' check (overlap in ('skip', 'allow')),
    jitter         interval not null default '0' check (jitter between '0' and '1 day'),
    -- where it stands
    counts_from    timestamptz not null default date_trunc('second', now()),  -- `every` counts from here
    next_at        timestamptz,
    ended_at       timestamptz,  -- no tick is to come
    last_tick_at   timestamptz,
    last_job_id    bigint,
    paused_at      timestamptz,
    paused_by      text,
    reason         text,
    unheld_since   timestamptz,  -- of code: when it was first seen that no live worker names it
    retired_at     timestamptz,
    problem        text,  -- why the worker can make no sense of it
    created_at     timestamptz not null default now(),
    created_by     text not null default current_user,
    constraint schedules_when check (num_nonnulls(cron, every, at) = 1),
    constraint schedules_all check (catch_up <> 'all' or overlap = 'allow')
) with (fillfactor = 50);

-- Ticks that were decided. `missed` stands for `count` ticks, of which `tick_at` is the last.
create table worker.schedule_ticks (
    schedule   text not null,
    tick_at    timestamptz not null,
    outcome    text not null check (outcome in ('enqueued', 'overlapped', 'missed', 'by hand')),
    count      integer not null default 1,
    job_id     bigint,
    worker     bigint,
    decided_at timestamptz not null default now(),
    constraint schedule_ticks_pkey primary key (schedule, tick_at)
);
create index schedule_ticks_decided on worker.schedule_ticks using brin (decided_at) with (pages_per_range = 32, autosummarize = on);

-- Another time, or a new beginning: planned anew from now on, except that a tick which is due already
-- still counts. After a pause nothing is made up for.
create function worker.replan_schedule() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if (old.cron, old.every, old.at, old.tz) is distinct from (new.cron, new.every, new.at, new.tz) then
        new.counts_from := date_trunc('second', now());
        new.ended_at := null;
        if new.next_at > now() or new.paused_at is not null then
            new.next_at := null;
        end if;
    end if;
    if (old.cron, old.every, old.at, old.tz, old.args, old.tick_as)
       is distinct from (new.cron, new.every, new.at, new.tz, new.args, new.tick_as) then
        new.problem := null;
    end if;
    if old.paused_at is not null and new.paused_at is null and new.next_at <= now() then
        new.next_at := null;
    end if;
    if old.retired_at is not null and new.retired_at is null then
        new.next_at := null;
        new.ended_at := null;
    end if;
    return new;
end
$$;
create trigger replan before update of cron, every, at, tz, args, tick_as, paused_at, retired_at on worker.schedules
    for each row execute function worker.replan_schedule();

-- Workers sleep until the next tick that they know of.
create function worker.tell_of_schedules() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_notify('duerow_schedules', '');
    return null;
end
$$;
create trigger tell after insert or update of cron, every, at, tz, args, tick_as, paused_at, retired_at on worker.schedules
    for each row execute function worker.tell_of_schedules();

-- Makes a schedule from plain SQL, or changes the one of that name, in the caller's transaction. One
-- that stands in the code of a worker is refused. Says whether it was made.
--   cron, every, at   when: one of the three
--   tz                the time zone of `cron`
--   overlap           skip, or with catch_up => 'all' allow
create function worker.schedule(
    name text,
    kind text,
    args jsonb default '{}',
    cron text default null,
    every interval default null,
    at timestamptz default null,
    tz text default 'UTC',
    queue text default 'default',
    priority integer default 0,
    tenant text default null,
    max_attempts integer default null,
    tick_as text default null,
    catch_up text default 'one',
    catch_up_limit integer default 100,
    overlap text default null,
    jitter interval default '0'
) returns boolean language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    made boolean;
begin
    if num_nonnulls(schedule.cron, schedule.every, schedule.at) <> 1 then
        raise exception 'worker.schedule: give one of cron, every and at' using errcode = 'invalid_parameter_value',
            hint = 'E.g. cron => ''0 9 * * mon'', tz => ''Europe/Berlin''; or every => ''5 minutes''; or at => ''2027-01-01 09:00+00''.';
    end if;
    perform now() at time zone schedule.tz;  -- raises for one that is not known
    insert into worker.schedules as s
           (name, kind, args, cron, every, at, tz, queue, priority, tenant, max_attempts, tick_as, catch_up,
            catch_up_limit, overlap, jitter)
    values (schedule.name, schedule.kind, schedule.args, schedule.cron, schedule.every, schedule.at, schedule.tz,
            schedule.queue, schedule.priority, schedule.tenant, schedule.max_attempts, schedule.tick_as,
            schedule.catch_up, schedule.catch_up_limit,
            coalesce(schedule.overlap, case schedule.catch_up when 'all' then 'allow' else 'skip' end), schedule.jitter)
        on conflict (name) do update
       set kind = excluded.kind, args = excluded.args, cron = excluded.cron, every = excluded.every, at = excluded.at,
           tz = excluded.tz, queue = excluded.queue, priority = excluded.priority, tenant = excluded.tenant,
           max_attempts = excluded.max_attempts, tick_as = excluded.tick_as, catch_up = excluded.catch_up,
           catch_up_limit = excluded.catch_up_limit, overlap = excluded.overlap, jitter = excluded.jitter
     where s.origin = 'operator'
    returning s.xmax = 0 into made;
    if not found then
        raise exception 'worker.schedule: the schedule "%" stands in the code of a worker', schedule.name
            using errcode = 'object_in_use', hint = 'Change it there, or choose another name.';
    end if;
    return made;
end
$$;

update worker.installation set schema_version = 2;
