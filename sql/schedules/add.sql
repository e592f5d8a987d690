-- Makes an operator's schedule, or changes the one of that name.
--
-- takes  $1 text: the schedule as JSON (worker/schedules/schedule.py, `row`), $2 text: who asks, $3 text: why, or null,
--        $4 boolean: whether it may be there already.
-- gives  name, outcome: added, changed, exists (and nothing was done), code: it stands in the code of a worker.
with given as materialized (
    select g.* from jsonb_to_record($1::text::jsonb) as g(
           name text, cron text, every float8, at timestamptz, tz text, kind text, queue text, args jsonb, tick_as text,
           priority smallint, tenant text, max_attempts integer, catch_up text, catch_up_limit integer, overlap text,
           jitter float8)
), before as (
    select s.origin from worker.schedules s join given g on g.name = s.name
), written as (
    insert into worker.schedules as s
           (name, cron, every, at, tz, kind, queue, args, tick_as, priority, tenant, max_attempts, catch_up,
            catch_up_limit, overlap, jitter, created_by)
    select name, cron, make_interval(secs => every), at, tz, kind, queue, args, tick_as, priority, tenant, max_attempts,
           catch_up, catch_up_limit, overlap, make_interval(secs => jitter), $2::text
      from given
        on conflict (name) do update
       set cron = excluded.cron, every = excluded.every, at = excluded.at, tz = excluded.tz, kind = excluded.kind,
           queue = excluded.queue, args = excluded.args, tick_as = excluded.tick_as, priority = excluded.priority,
           tenant = excluded.tenant, max_attempts = excluded.max_attempts, catch_up = excluded.catch_up,
           catch_up_limit = excluded.catch_up_limit, overlap = excluded.overlap, jitter = excluded.jitter
     where s.origin = 'operator' and $4::boolean
    returning s.name, s.xmax = 0 as made
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $2::text, case when made then 'add' else 'change' end, 'schedules', name, $3::text from written
)
select g.name,
       case when w.made then 'added' when w.name is not null then 'changed'
            when (select origin from before) = 'code' then 'code' else 'exists' end as outcome
  from given g
  left join written w on w.name = g.name;
