-- Looks for schedules that are due, or whose next tick was never worked out.
--
-- takes  $1 int: most of them.
-- gives  at least one row. now; wait: seconds from this moment to the next tick that is not due yet, or null; and for
--        each schedule found what worker/schedules/plan.py goes by, the longest due first. Without any, name is null.
--
-- One of a worker's code counts while a live worker names it.
with named as materialized (
    select distinct unnest(w.schedules) as name
      from worker.workers w
     where w.gone_at is null and w.stopped_at is null and w.heartbeat_at + w.lease > now()
), active as materialized (
    select s.*, s.xmin::text as version
      from worker.schedules s
     where s.paused_at is null and s.ended_at is null and s.retired_at is null and s.problem is null
       and (s.origin = 'operator' or s.name in (select name from named))
), found as (
    select * from active where next_at is null or next_at <= now() order by next_at nulls first limit $1::integer
)
select now() as now,
       (select extract(epoch from min(next_at) - clock_timestamp())::float8 from active where next_at > now()) as wait,
       f.name, f.version, f.cron, extract(epoch from f.every)::float8 as every, f.at, f.tz, f.counts_from, f.next_at,
       f.catch_up, f.catch_up_limit, f.tick_as, extract(epoch from f.jitter)::float8 as jitter
  from (select) one
  left join found f on true;
