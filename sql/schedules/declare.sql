-- Says which schedules the code of a worker names, and makes the rows agree with it.
--
-- takes  $1 bigint: the worker's id, $2 jsonb: an array of schedules (worker/schedules/schedule.py, `row`).
-- gives  name, change: made, changed, or back (it had been retired); taken: an operator's schedule has that name, and
--        stays as it is.
-- none   all agree already.
--
-- Where the code of several workers differs, as in a deploy, that of the worker started last holds: a worker writes
-- only what no live worker with a higher id names. It asks again every minute, so the rows follow when that one goes.
-- Pause and next tick stay; the trigger plans anew what has another time.
with declared as materialized (
    select d.* from jsonb_to_recordset($2::jsonb) as d(
           name text, cron text, every float8, at timestamptz, tz text, kind text, queue text, args jsonb, tick_as text,
           priority smallint, tenant text, max_attempts integer, catch_up text, catch_up_limit integer, overlap text,
           jitter float8)
), told as (
    update worker.workers w
       set schedules = array(select name from declared order by name)
     where w.id = $1::bigint and w.schedules <> array(select name from declared order by name)
), wanted as materialized (
    select d.name, d.cron, make_interval(secs => d.every) as every, d.at, d.tz, d.kind, d.queue, d.args, d.tick_as,
           d.priority, d.tenant, d.max_attempts, d.catch_up, d.catch_up_limit, d.overlap,
           make_interval(secs => d.jitter) as jitter
      from declared d
     where not exists (
            select from worker.workers w
             where w.id > $1::bigint and w.gone_at is null and w.stopped_at is null and w.heartbeat_at + w.lease > now()
               and d.name = any (w.schedules))
     order by d.name collate "C"
), before as (
    select s.name, s.origin, s.retired_at from worker.schedules s join declared d on d.name = s.name
), written as (
    insert into worker.schedules as s
           (name, origin, cron, every, at, tz, kind, queue, args, tick_as, priority, tenant, max_attempts, catch_up,
            catch_up_limit, overlap, jitter)
    select name, 'code', cron, every, at, tz, kind, queue, args, tick_as, priority, tenant, max_attempts, catch_up,
           catch_up_limit, overlap, jitter
      from wanted
        on conflict (name) do update
       set cron = excluded.cron, every = excluded.every, at = excluded.at, tz = excluded.tz, kind = excluded.kind,
           queue = excluded.queue, args = excluded.args, tick_as = excluded.tick_as, priority = excluded.priority,
           tenant = excluded.tenant, max_attempts = excluded.max_attempts, catch_up = excluded.catch_up,
           catch_up_limit = excluded.catch_up_limit, overlap = excluded.overlap, jitter = excluded.jitter,
           unheld_since = null, retired_at = null
     where s.origin = 'code'
       and (s.unheld_since is not null or s.retired_at is not null
            or (s.cron, s.every, s.at, s.tz, s.kind, s.queue, s.args, s.tick_as, s.priority, s.tenant, s.max_attempts,
                s.catch_up, s.catch_up_limit, s.overlap, s.jitter)
               is distinct from
               (excluded.cron, excluded.every, excluded.at, excluded.tz, excluded.kind, excluded.queue, excluded.args,
                excluded.tick_as, excluded.priority, excluded.tenant, excluded.max_attempts, excluded.catch_up,
                excluded.catch_up_limit, excluded.overlap, excluded.jitter))
    returning s.name, s.xmax = 0 as made
)
select w.name, case when w.made then 'made' when b.retired_at is not null then 'back' else 'changed' end as change
  from written w
  left join before b on b.name = w.name
union all
select b.name, 'taken' from before b where b.origin = 'operator'
 order by name;
