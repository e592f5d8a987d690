-- Generated from the revisions in alembic/versions by `make schema`. Do not edit: read it, or
-- load it into an empty database (psql -1 -f). The comments on each table are in the revisions.
--
-- The core of Duerow: live jobs, finished jobs, attempts, workers.
--
-- A row's life
--
--     enqueue --> waiting --claim--> claimed --settle--> done | dead | cancelled   (jobs_finished)
--                    ^                  |
--                    +-- retry, snooze, release, sweep
--
-- Only *waiting* and *claimed* rows stand in worker.jobs. A row is claimed when `owner` is set.
-- *Due*, *scheduled* and *retrying* are read off `due_at`, `attempt` and now(); they are not stored.
-- A row that is done, dead or cancelled is deleted from worker.jobs and inserted into
-- worker.jobs_finished by one statement; an operator's retry moves it back under the same id.
--
-- A claim is the pair (owner, token). Every statement that writes a claimed row matches both, so
-- that a worker which was frozen, cut off or swept can never write the result of an old claim.
-- The token only grows. The attempt falls only by release and snooze, which cost none.
--
-- Nothing here depends on search_path: every name is qualified.

CREATE SCHEMA worker;

CREATE FUNCTION worker.adopted_rows(states text[], lines bigint DEFAULT NULL::bigint) RETURNS TABLE(source text, row_key text, state text, due_at timestamp with time zone, tenant text, attempt integer, crashes integer, token bigint, worker bigint, last_error text)
    LANGUAGE plpgsql STABLE
    SET lock_timeout TO '1s'
    AS $_$
declare
    one   record;
    falls text;  -- SQL for the time that decides
    zone  text;  -- and what makes a timestamptz of it
    key   text;
begin
    for one in
        select s.*, coalesce(to_regclass(s.table_name), c.oid::regclass) as place
          from worker.sources s
          left join pg_catalog.pg_class c on c.oid = s.table_oid
         order by s.name
    loop
        begin
            if one.place is null then
                raise exception '% is gone', one.table_name;
            end if;
            falls := format('(case when w.duerow_held_for = w.%1$I then w.duerow_retry_at else w.%1$I end)', one.due);
            select case when 'timestamp'::regtype in (t.oid, t.typbasetype) then ' at time zone ''UTC''' else '' end into zone
              from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
             where a.attrelid = one.place and a.attname = one.due;
            -- as worker.attempts knows the row: see docs/tables.md
            select case when count(*) = 1 then min(part)
                        else format('concat_ws('','', %s)', string_agg(
                             format('replace(replace(%s, ''\'', ''\\''), '','', ''\,'')', part), ', ' order by place)) end into key
              from (select k.place, format(case when 'timestamptz'::regtype in (t.oid, t.typbasetype)
                                                then '(w.%I at time zone ''UTC'')::text || ''+00''' else 'w.%I::text' end, k.name) as part
                      from unnest(one.key) with ordinality as k(name, place)
                      join pg_catalog.pg_attribute a on a.attrelid = one.place and a.attname = k.name
                      join pg_catalog.pg_type t on t.oid = a.atttypid) parts;
            return query execute format(
                'select %1$L::text, r.* from (
                    select %2$s as row_key,
                           case when w.duerow_owner is not null then ''running''
                                when w.duerow_held_for = w.%3$I and w.duerow_state is not null then w.duerow_state
                                when not isfinite(%4$s) then ''idle''
                                when %4$s <= (now()%5$s) then ''due''
                                when w.duerow_held_for = w.%3$I and w.duerow_attempt > 0 then ''retrying''
                                else ''scheduled'' end as state,
                           case when isfinite(%4$s) then %4$s%5$s end as due_at, %6$s as tenant, w.duerow_attempt,
                           w.duerow_crashes::integer, w.duerow_token, w.duerow_owner, w.duerow_error
                      from %7$s w
                     where (' || E'\n%8$s\n' || ') and %4$s >= %9$s and %4$s %10$s
                     %11$s) r
                  where r.state = any ($1) limit $2',
                one.name, key, one.due, falls, zone,
                case when one.tenant is null then 'null::text' else format('w.%I::text', one.tenant) end,
                one.place, coalesce(one.condition, 'true'),
                case when states && '{due,running}' then '''-infinity'''
                     when states && '{retrying,scheduled}' then '(now()' || zone || ')'
                     else '''infinity''' end,
                case when states && '{dead,cancelled}' then '<= ''infinity'''
                     when states && '{retrying,scheduled}' then '< ''infinity'''
                     else '<= (now()' || zone || ')' end,
                case when lines is not null then 'order by ' || falls end)
            using states, lines;
        exception when others then
            return query select one.name, null::text, 'unreadable', null::timestamptz, null::text, null::integer,
                                null::integer, null::bigint, null::bigint, sqlerrm;
        end;
    end loop;
end
$_$;

CREATE FUNCTION worker.drop_partitions(parent text, key text, before timestamp with time zone) RETURNS SETOF text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    part text;
    day text;
begin
    for part in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = format('worker.%I', parent)::regclass and c.relname ~ ('^' || parent || '_[0-9]{8}$')
         order by 1
    loop
        day := right(part, 8);
        if to_date(day, 'YYYYMMDD') + 1 <= (before at time zone 'UTC')::date then
            execute format('drop table worker.%I', part);
            return next part;
        end if;
    end loop;
    execute format('delete from worker.%I where %I < %L', parent || '_default', key, before);
end
$_$;

CREATE FUNCTION worker.enqueue(kind text, args jsonb DEFAULT '{}'::jsonb, queue text DEFAULT 'default'::text, priority integer DEFAULT 0, due_at timestamp with time zone DEFAULT now(), in_ interval DEFAULT '00:00:00'::interval, tenant text DEFAULT NULL::text, unique_key text DEFAULT NULL::text, unique_for interval DEFAULT NULL::interval, max_attempts integer DEFAULT NULL::integer, trace text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    new_id bigint := nextval('worker.jobs_id_seq');
    holder bigint;
    booked boolean := false;
    due timestamptz := coalesce(enqueue.due_at, now()) + coalesce(enqueue.in_, '0');
begin
    if jsonb_typeof(enqueue.args) is distinct from 'object' then
        raise exception 'worker.enqueue: args must be a JSON object, got %', coalesce(jsonb_typeof(enqueue.args), 'null')
            using errcode = 'invalid_parameter_value', hint = 'Pass the handler''s arguments by name, e.g. ''{"donation_id": 7}''.';
    end if;
    if pg_column_size(enqueue.args) > 262144 then
        raise exception 'worker.enqueue: args of % bytes are over the limit of 262144', pg_column_size(enqueue.args)
            using errcode = 'program_limit_exceeded', hint = 'Store the data in a table or an object store and pass its key.';
    end if;
    if enqueue.unique_for is not null and enqueue.unique_key is null then
        raise exception 'worker.enqueue: unique_for needs a unique_key' using errcode = 'invalid_parameter_value';
    end if;
    loop
        if enqueue.unique_for is not null and not booked then
            insert into worker.unique_keys as u (kind, unique_key, job_id, expires_at)
            values (enqueue.kind, enqueue.unique_key, new_id, now() + enqueue.unique_for)
            on conflict (kind, unique_key) do update set job_id = excluded.job_id, expires_at = excluded.expires_at
             where u.expires_at <= now();
            if not found then
                select u.job_id into holder from worker.unique_keys u
                 where u.kind = enqueue.kind and u.unique_key = enqueue.unique_key;
                if found then return holder; end if;
                continue;
            end if;
            booked := true;
        end if;
        insert into worker.jobs (id, kind, args, queue, priority, due_at, tenant, unique_key, max_attempts, trace)
        values (new_id, enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority, due, enqueue.tenant, enqueue.unique_key,
                enqueue.max_attempts, enqueue.trace)
        on conflict (kind, unique_key) where unique_key is not null do nothing;
        if found then
            if due <= now() + interval '1 minute' then  -- later ones are found by looking
                perform pg_notify('duerow', enqueue.queue);
            end if;
            return new_id;
        end if;
        select j.id into holder from worker.jobs j where j.kind = enqueue.kind and j.unique_key = enqueue.unique_key;
        if found then
            update worker.unique_keys u set job_id = holder
             where booked and u.kind = enqueue.kind and u.unique_key = enqueue.unique_key;
            return holder;
        end if;
    end loop;
end
$$;

CREATE FUNCTION worker.ensure_partitions(parent text, key text, ahead integer, since timestamp with time zone DEFAULT now()) RETURNS SETOF text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    day date;
    part text;
begin
    for day in select generate_series((since at time zone 'UTC')::date, (now() at time zone 'UTC')::date + ahead, '1 day')::date loop
        part := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
        if to_regclass(format('worker.%I', part)) is null then
            execute format('create table worker.%I (like worker.%I including all)', part, parent);
            -- As the attach below will, and before rows are moved: none may come in between.
            execute format('lock table worker.%I in access exclusive mode', parent || '_default');
            execute format(
                'with moved as (delete from worker.%I where %I >= %L and %I < %L returning *) insert into worker.%I select * from moved',
                parent || '_default', key, day::timestamp at time zone 'UTC', key, (day + 1)::timestamp at time zone 'UTC', part);
            execute format('alter table worker.%I attach partition worker.%I for values from (%L) to (%L)',
                parent, part, day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
            return next part;
        end if;
    end loop;
end
$$;

CREATE FUNCTION worker.replan_schedule() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION worker.schedule(name text, kind text, args jsonb DEFAULT '{}'::jsonb, cron text DEFAULT NULL::text, every interval DEFAULT NULL::interval, at timestamp with time zone DEFAULT NULL::timestamp with time zone, tz text DEFAULT 'UTC'::text, queue text DEFAULT 'default'::text, priority integer DEFAULT 0, tenant text DEFAULT NULL::text, max_attempts integer DEFAULT NULL::integer, tick_as text DEFAULT NULL::text, catch_up text DEFAULT 'one'::text, catch_up_limit integer DEFAULT 100, overlap text DEFAULT NULL::text, jitter interval DEFAULT '00:00:00'::interval) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION worker.tell_of_schedules() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform pg_notify('duerow_schedules', '');
    return null;
end
$$;

CREATE TABLE worker.jobs (
    id bigint NOT NULL,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    claimed_at timestamp with time zone,
    owner bigint,
    token bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    max_attempts integer,
    priority smallint DEFAULT 0 NOT NULL,
    crashes smallint DEFAULT 0 NOT NULL,
    queue text DEFAULT 'default'::text NOT NULL,
    kind text NOT NULL,
    tenant text,
    unique_key text,
    trace text,
    args jsonb DEFAULT '{}'::jsonb NOT NULL,
    last_error text,
    CONSTRAINT jobs_args_check CHECK ((jsonb_typeof(args) = 'object'::text)),
    CONSTRAINT jobs_due_at_check CHECK (isfinite(due_at)),
    CONSTRAINT jobs_kind_check CHECK ((kind <> ''::text)),
    CONSTRAINT jobs_max_attempts_check CHECK ((max_attempts > 0)),
    CONSTRAINT jobs_queue_check CHECK ((queue <> ''::text))
)
WITH (fillfactor='45', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_cost_delay='0', autovacuum_analyze_scale_factor='0.1', autovacuum_analyze_threshold='2000');

CREATE TABLE worker.jobs_finished (
    id bigint NOT NULL,
    finished_at timestamp with time zone DEFAULT now() NOT NULL,
    due_at timestamp with time zone NOT NULL,
    claimed_at timestamp with time zone,
    worker bigint,
    token bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    attempt integer NOT NULL,
    max_attempts integer,
    run_ms integer,
    priority smallint NOT NULL,
    crashes smallint NOT NULL,
    state text NOT NULL,
    queue text NOT NULL,
    kind text NOT NULL,
    tenant text,
    unique_key text,
    trace text,
    args jsonb NOT NULL,
    result jsonb,
    last_error text,
    CONSTRAINT jobs_finished_state_check CHECK ((state = ANY (ARRAY['done'::text, 'dead'::text, 'cancelled'::text])))
)
PARTITION BY RANGE (finished_at);

CREATE VIEW worker.all_jobs AS
 SELECT jobs.id,
        CASE
            WHEN (jobs.owner IS NOT NULL) THEN 'running'::text
            WHEN (jobs.due_at <= now()) THEN 'due'::text
            WHEN (jobs.attempt > 0) THEN 'retrying'::text
            ELSE 'scheduled'::text
        END AS state,
    jobs.queue,
    jobs.kind,
    jobs.priority,
    jobs.tenant,
    jobs.attempt,
    jobs.max_attempts,
    jobs.crashes,
    jobs.due_at,
    jobs.claimed_at,
    NULL::timestamp with time zone AS finished_at,
    jobs.owner AS worker,
    jobs.token,
    jobs.created_at,
    NULL::integer AS run_ms,
    jobs.unique_key,
    jobs.trace,
    jobs.args,
    NULL::jsonb AS result,
    jobs.last_error
   FROM worker.jobs
UNION ALL
 SELECT jobs_finished.id,
    jobs_finished.state,
    jobs_finished.queue,
    jobs_finished.kind,
    jobs_finished.priority,
    jobs_finished.tenant,
    jobs_finished.attempt,
    jobs_finished.max_attempts,
    jobs_finished.crashes,
    jobs_finished.due_at,
    jobs_finished.claimed_at,
    jobs_finished.finished_at,
    jobs_finished.worker,
    jobs_finished.token,
    jobs_finished.created_at,
    jobs_finished.run_ms,
    jobs_finished.unique_key,
    jobs_finished.trace,
    jobs_finished.args,
    jobs_finished.result,
    jobs_finished.last_error
   FROM worker.jobs_finished;

CREATE TABLE worker.attempts (
    ended_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    source text DEFAULT 'jobs'::text NOT NULL,
    row_key text NOT NULL,
    queue text NOT NULL,
    kind text NOT NULL,
    tenant text,
    attempt integer NOT NULL,
    token bigint NOT NULL,
    worker bigint,
    outcome text NOT NULL,
    next_at timestamp with time zone,
    error_type text,
    message text,
    fingerprint text,
    traceback text
)
PARTITION BY RANGE (ended_at);

CREATE VIEW worker.attempt_log AS
 SELECT attempts.source,
    attempts.row_key,
    attempts.queue,
    attempts.kind,
    attempts.tenant,
    attempts.attempt,
    attempts.token,
    attempts.worker,
    attempts.started_at,
    attempts.ended_at,
    attempts.outcome,
    attempts.next_at,
    attempts.error_type,
    attempts.message,
    attempts.fingerprint,
    attempts.traceback
   FROM worker.attempts
UNION ALL
 SELECT 'jobs'::text AS source,
    (jobs_finished.id)::text AS row_key,
    jobs_finished.queue,
    jobs_finished.kind,
    jobs_finished.tenant,
    jobs_finished.attempt,
    jobs_finished.token,
    jobs_finished.worker,
    (jobs_finished.finished_at - make_interval(secs => (((jobs_finished.run_ms)::numeric / 1000.0))::double precision)) AS started_at,
    jobs_finished.finished_at AS ended_at,
    jobs_finished.state AS outcome,
    NULL::timestamp with time zone AS next_at,
    NULL::text AS error_type,
    NULL::text AS message,
    NULL::text AS fingerprint,
    NULL::text AS traceback
   FROM worker.jobs_finished
  WHERE (jobs_finished.state = 'done'::text);

CREATE TABLE worker.attempts_default (
    ended_at timestamp with time zone DEFAULT now() CONSTRAINT attempts_ended_at_not_null NOT NULL,
    started_at timestamp with time zone,
    source text DEFAULT 'jobs'::text CONSTRAINT attempts_source_not_null NOT NULL,
    row_key text CONSTRAINT attempts_row_key_not_null NOT NULL,
    queue text CONSTRAINT attempts_queue_not_null NOT NULL,
    kind text CONSTRAINT attempts_kind_not_null NOT NULL,
    tenant text,
    attempt integer CONSTRAINT attempts_attempt_not_null NOT NULL,
    token bigint CONSTRAINT attempts_token_not_null NOT NULL,
    worker bigint,
    outcome text CONSTRAINT attempts_outcome_not_null NOT NULL,
    next_at timestamp with time zone,
    error_type text,
    message text,
    fingerprint text,
    traceback text
);

CREATE TABLE worker.chores (
    name text NOT NULL,
    last_run_at timestamp with time zone,
    last_ms integer,
    last_worker bigint,
    last_result text
)
WITH (fillfactor='50');

CREATE TABLE worker.gate_shares (
    gate bigint NOT NULL,
    worker bigint NOT NULL,
    in_use integer NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE worker.gates (
    id bigint NOT NULL,
    queue text,
    kind text,
    tenant text,
    paused_at timestamp with time zone,
    paused_by text,
    reason text,
    blocked_until timestamp with time zone,
    blocked_why text,
    rate double precision,
    burst integer,
    full_at timestamp with time zone,
    concurrency integer,
    in_use integer DEFAULT 0 NOT NULL,
    trip_after integer,
    trip_share real,
    trip_window interval,
    trip_runs integer,
    trip_pause interval,
    failures integer DEFAULT 0 NOT NULL,
    window_began timestamp with time zone,
    window_runs integer DEFAULT 0 NOT NULL,
    window_failed integer DEFAULT 0 NOT NULL,
    opened_at timestamp with time zone,
    open_until timestamp with time zone,
    probe bigint,
    set_by text,
    governs boolean GENERATED ALWAYS AS (((paused_at IS NOT NULL) OR (blocked_until IS NOT NULL) OR (rate IS NOT NULL) OR (concurrency IS NOT NULL) OR (trip_after IS NOT NULL) OR (trip_share IS NOT NULL))) STORED NOT NULL,
    CONSTRAINT gates_burst_check CHECK ((burst > 0)),
    CONSTRAINT gates_concurrency_check CHECK ((concurrency >= 0)),
    CONSTRAINT gates_rate_check CHECK (((rate > (0)::double precision) AND (rate < 'Infinity'::double precision))),
    CONSTRAINT gates_trip_after_check CHECK ((trip_after > 0)),
    CONSTRAINT gates_trip_pause_check CHECK ((trip_pause > '00:00:00'::interval)),
    CONSTRAINT gates_trip_share_check CHECK (((trip_share > (0)::double precision) AND (trip_share <= (1)::double precision))),
    CONSTRAINT gates_trip_window_check CHECK ((trip_window > '00:00:00'::interval))
)
WITH (fillfactor='50');

ALTER TABLE worker.gates ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME worker.gates_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE worker.installation (
    singleton boolean DEFAULT true NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    schema_version integer NOT NULL,
    compatible_with integer NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT installation_singleton_check CHECK (singleton)
);

CREATE TABLE worker.jobs_finished_default (
    id bigint CONSTRAINT jobs_finished_id_not_null NOT NULL,
    finished_at timestamp with time zone DEFAULT now() CONSTRAINT jobs_finished_finished_at_not_null NOT NULL,
    due_at timestamp with time zone CONSTRAINT jobs_finished_due_at_not_null NOT NULL,
    claimed_at timestamp with time zone,
    worker bigint,
    token bigint CONSTRAINT jobs_finished_token_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT jobs_finished_created_at_not_null NOT NULL,
    attempt integer CONSTRAINT jobs_finished_attempt_not_null NOT NULL,
    max_attempts integer,
    run_ms integer,
    priority smallint CONSTRAINT jobs_finished_priority_not_null NOT NULL,
    crashes smallint CONSTRAINT jobs_finished_crashes_not_null NOT NULL,
    state text CONSTRAINT jobs_finished_state_not_null NOT NULL,
    queue text CONSTRAINT jobs_finished_queue_not_null NOT NULL,
    kind text CONSTRAINT jobs_finished_kind_not_null NOT NULL,
    tenant text,
    unique_key text,
    trace text,
    args jsonb CONSTRAINT jobs_finished_args_not_null NOT NULL,
    result jsonb,
    last_error text,
    CONSTRAINT jobs_finished_state_check CHECK ((state = ANY (ARRAY['done'::text, 'dead'::text, 'cancelled'::text])))
);

ALTER TABLE worker.jobs ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME worker.jobs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE worker.operator_actions (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    actor text DEFAULT CURRENT_USER NOT NULL,
    action text NOT NULL,
    source text DEFAULT 'jobs'::text NOT NULL,
    target text NOT NULL,
    reason text,
    worker bigint,
    token bigint,
    handled_at timestamp with time zone
);

ALTER TABLE worker.operator_actions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME worker.operator_actions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE worker.schedule_ticks (
    schedule text NOT NULL,
    tick_at timestamp with time zone NOT NULL,
    outcome text NOT NULL,
    count integer DEFAULT 1 NOT NULL,
    job_id bigint,
    worker bigint,
    decided_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT schedule_ticks_outcome_check CHECK ((outcome = ANY (ARRAY['enqueued'::text, 'overlapped'::text, 'missed'::text, 'by hand'::text])))
);

CREATE TABLE worker.schedules (
    name text NOT NULL,
    origin text DEFAULT 'operator'::text NOT NULL,
    cron text,
    every interval,
    at timestamp with time zone,
    tz text DEFAULT 'UTC'::text NOT NULL,
    kind text NOT NULL,
    queue text DEFAULT 'default'::text NOT NULL,
    args jsonb DEFAULT '{}'::jsonb NOT NULL,
    tick_as text,
    priority smallint DEFAULT 0 NOT NULL,
    tenant text,
    max_attempts integer,
    catch_up text DEFAULT 'one'::text NOT NULL,
    catch_up_limit integer DEFAULT 100 NOT NULL,
    overlap text DEFAULT 'skip'::text NOT NULL,
    jitter interval DEFAULT '00:00:00'::interval NOT NULL,
    counts_from timestamp with time zone DEFAULT date_trunc('second'::text, now()) NOT NULL,
    next_at timestamp with time zone,
    ended_at timestamp with time zone,
    last_tick_at timestamp with time zone,
    last_job_id bigint,
    paused_at timestamp with time zone,
    paused_by text,
    reason text,
    unheld_since timestamp with time zone,
    retired_at timestamp with time zone,
    problem text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by text DEFAULT CURRENT_USER NOT NULL,
    CONSTRAINT schedules_all CHECK (((catch_up <> 'all'::text) OR (overlap = 'allow'::text))),
    CONSTRAINT schedules_args_check CHECK ((jsonb_typeof(args) = 'object'::text)),
    CONSTRAINT schedules_at_check CHECK (isfinite(at)),
    CONSTRAINT schedules_catch_up_check CHECK ((catch_up = ANY (ARRAY['skip'::text, 'one'::text, 'all'::text]))),
    CONSTRAINT schedules_catch_up_limit_check CHECK (((catch_up_limit >= 1) AND (catch_up_limit <= 1000))),
    CONSTRAINT schedules_every_check CHECK (((every >= '00:00:01'::interval) AND (EXTRACT(year FROM every) = (0)::numeric) AND (EXTRACT(month FROM every) = (0)::numeric))),
    CONSTRAINT schedules_jitter_check CHECK (((jitter >= '00:00:00'::interval) AND (jitter <= '1 day'::interval))),
    CONSTRAINT schedules_kind_check CHECK ((kind <> ''::text)),
    CONSTRAINT schedules_max_attempts_check CHECK ((max_attempts > 0)),
    CONSTRAINT schedules_name_check CHECK (((char_length(name) >= 1) AND (char_length(name) <= 200))),
    CONSTRAINT schedules_origin_check CHECK ((origin = ANY (ARRAY['code'::text, 'operator'::text]))),
    CONSTRAINT schedules_overlap_check CHECK ((overlap = ANY (ARRAY['skip'::text, 'allow'::text]))),
    CONSTRAINT schedules_queue_check CHECK ((queue <> ''::text)),
    CONSTRAINT schedules_when CHECK ((num_nonnulls(cron, every, at) = 1))
)
WITH (fillfactor='50');

CREATE TABLE worker.schema_revisions (
    version_num character varying(32) NOT NULL
);

CREATE TABLE worker.sources (
    name text NOT NULL,
    table_oid oid NOT NULL,
    table_name text NOT NULL,
    key text[] NOT NULL,
    due text NOT NULL,
    condition text,
    tenant text,
    index_name text NOT NULL,
    tenant_index text,
    added_at timestamp with time zone DEFAULT now() NOT NULL,
    added_by text DEFAULT CURRENT_USER NOT NULL
);

CREATE TABLE worker.stats (
    minute timestamp with time zone NOT NULL,
    source text DEFAULT 'jobs'::text NOT NULL,
    queue text NOT NULL,
    kind text NOT NULL,
    outcome text NOT NULL,
    count bigint NOT NULL,
    run_ms bigint DEFAULT 0 NOT NULL,
    wait_ms bigint DEFAULT 0 NOT NULL
);

CREATE TABLE worker.unique_keys (
    kind text NOT NULL,
    unique_key text NOT NULL,
    job_id bigint NOT NULL,
    expires_at timestamp with time zone NOT NULL
);

CREATE TABLE worker.workers (
    id bigint NOT NULL,
    name text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    queues text[] NOT NULL,
    kinds text[] NOT NULL,
    slots integer NOT NULL,
    lease interval NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    heartbeat_at timestamp with time zone DEFAULT now() NOT NULL,
    running integer DEFAULT 0 NOT NULL,
    settled bigint DEFAULT 0 NOT NULL,
    lost bigint DEFAULT 0 NOT NULL,
    draining_at timestamp with time zone,
    stopped_at timestamp with time zone,
    gone_at timestamp with time zone,
    schedules text[] DEFAULT '{}'::text[] NOT NULL
)
WITH (fillfactor='50');

ALTER TABLE worker.workers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME worker.workers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY worker.attempts ATTACH PARTITION worker.attempts_default DEFAULT;

ALTER TABLE ONLY worker.jobs_finished ATTACH PARTITION worker.jobs_finished_default DEFAULT;

ALTER TABLE ONLY worker.chores
    ADD CONSTRAINT chores_pkey PRIMARY KEY (name);

ALTER TABLE ONLY worker.gate_shares
    ADD CONSTRAINT gate_shares_pkey PRIMARY KEY (gate, worker);

ALTER TABLE ONLY worker.gates
    ADD CONSTRAINT gates_pkey PRIMARY KEY (id);

ALTER TABLE ONLY worker.gates
    ADD CONSTRAINT gates_scope UNIQUE NULLS NOT DISTINCT (queue, kind, tenant);

ALTER TABLE ONLY worker.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY worker.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY worker.operator_actions
    ADD CONSTRAINT operator_actions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY worker.schedule_ticks
    ADD CONSTRAINT schedule_ticks_pkey PRIMARY KEY (schedule, tick_at);

ALTER TABLE ONLY worker.schedules
    ADD CONSTRAINT schedules_pkey PRIMARY KEY (name);

ALTER TABLE ONLY worker.schema_revisions
    ADD CONSTRAINT schema_revisions_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY worker.sources
    ADD CONSTRAINT sources_pkey PRIMARY KEY (name);

ALTER TABLE ONLY worker.stats
    ADD CONSTRAINT stats_pkey PRIMARY KEY (minute, source, queue, kind, outcome);

ALTER TABLE ONLY worker.unique_keys
    ADD CONSTRAINT unique_keys_pkey PRIMARY KEY (kind, unique_key);

ALTER TABLE ONLY worker.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (id);

CREATE INDEX attempts_ended ON ONLY worker.attempts USING brin (ended_at) WITH (pages_per_range='32', autosummarize='on');

CREATE INDEX attempts_default_ended_at_idx ON worker.attempts_default USING brin (ended_at) WITH (pages_per_range='32', autosummarize='on');

CREATE INDEX attempts_row ON ONLY worker.attempts USING btree (source, row_key, token);

CREATE INDEX attempts_default_source_row_key_token_idx ON worker.attempts_default USING btree (source, row_key, token);

CREATE INDEX gate_shares_worker ON worker.gate_shares USING btree (worker);

CREATE INDEX gates_governing ON worker.gates USING btree (tenant) WHERE governs;

CREATE INDEX gates_tenant ON worker.gates USING btree (tenant) WHERE (tenant IS NOT NULL);

CREATE INDEX jobs_due ON worker.jobs USING btree (queue, kind, priority, due_at, id);

CREATE INDEX jobs_finished_at ON ONLY worker.jobs_finished USING brin (finished_at) WITH (pages_per_range='32', autosummarize='on');

CREATE INDEX jobs_finished_dead ON ONLY worker.jobs_finished USING btree (finished_at) WHERE (state = 'dead'::text);

CREATE INDEX jobs_finished_default_finished_at_idx ON worker.jobs_finished_default USING brin (finished_at) WITH (pages_per_range='32', autosummarize='on');

CREATE INDEX jobs_finished_default_finished_at_idx1 ON worker.jobs_finished_default USING btree (finished_at) WHERE (state = 'dead'::text);

CREATE INDEX jobs_finished_id ON ONLY worker.jobs_finished USING btree (id);

CREATE INDEX jobs_finished_default_id_idx ON worker.jobs_finished_default USING btree (id);

CREATE INDEX jobs_tenant ON worker.jobs USING btree (queue, kind, priority, tenant, LEAST(due_at, 'infinity'::timestamp with time zone), id) WHERE (tenant IS NOT NULL);

CREATE UNIQUE INDEX jobs_unique ON worker.jobs USING btree (kind, unique_key) WHERE (unique_key IS NOT NULL);

CREATE INDEX operator_actions_pending ON worker.operator_actions USING btree (worker) WHERE ((worker IS NOT NULL) AND (handled_at IS NULL));

CREATE INDEX schedule_ticks_decided ON worker.schedule_ticks USING brin (decided_at) WITH (pages_per_range='32', autosummarize='on');

ALTER INDEX worker.attempts_ended ATTACH PARTITION worker.attempts_default_ended_at_idx;

ALTER INDEX worker.attempts_row ATTACH PARTITION worker.attempts_default_source_row_key_token_idx;

ALTER INDEX worker.jobs_finished_at ATTACH PARTITION worker.jobs_finished_default_finished_at_idx;

ALTER INDEX worker.jobs_finished_dead ATTACH PARTITION worker.jobs_finished_default_finished_at_idx1;

ALTER INDEX worker.jobs_finished_id ATTACH PARTITION worker.jobs_finished_default_id_idx;

CREATE TRIGGER replan BEFORE UPDATE OF cron, every, at, tz, args, tick_as, paused_at, retired_at ON worker.schedules FOR EACH ROW EXECUTE FUNCTION worker.replan_schedule();

CREATE TRIGGER tell AFTER INSERT OR UPDATE OF cron, every, at, tz, args, tick_as, paused_at, retired_at ON worker.schedules FOR EACH ROW EXECUTE FUNCTION worker.tell_of_schedules();

ALTER TABLE ONLY worker.gate_shares
    ADD CONSTRAINT gate_shares_gate_fkey FOREIGN KEY (gate) REFERENCES worker.gates(id) ON DELETE CASCADE;

-- What the revisions insert. Partitions are made for the days to come.

insert into worker.installation (schema_version, compatible_with) values (2, 1);
insert into worker.schema_revisions (version_num) values ('0002');
select worker.ensure_partitions('attempts', 'ended_at', 7);
select worker.ensure_partitions('jobs_finished', 'finished_at', 7);
