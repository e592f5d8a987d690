-- Locks gates, in the order of their ids, and gives them as they stand under the locks.
--
-- takes  $1 bigint[]: their ids, $2 bigint: the worker's id.
-- gives  as gates.sql, with the share of the concurrency that the worker is down for; at: when all were locked.
--
-- A tenant's gate that was given nothing of its own has what the tenant '*' of its scope was given. A bucket that was
-- never used begins empty: a fleet that starts on a backlog is not to open with a burst. A worker that tries an open
-- breaker and is gone since tries no more. The clock is read once the last lock is held, for there may have been a long
-- wait, and starts that are reckoned from before it would fall among those that others were given meanwhile. It counts
-- what is locked because a planner is free to read it first otherwise, and does.
with locked as materialized (
    select g.id, g.queue, g.kind, g.tenant, g.blocked_until, g.full_at, g.in_use, g.opened_at, g.open_until, g.probe,
           g.paused_at is not null or each.paused_at is not null as paused,
           case when g.set_by is null then each.rate else g.rate end as rate,
           case when g.set_by is null then each.burst else g.burst end as burst,
           case when g.set_by is null then each.concurrency else g.concurrency end as concurrency,
           case when g.set_by is null then coalesce(each.trip_after, 0) else coalesce(g.trip_after, 0) end > 0
             or case when g.set_by is null then each.trip_share else g.trip_share end is not null as trips
      from worker.gates g
      left join worker.gates each on each.tenant = '*' and g.tenant <> '*'
           and each.queue is not distinct from g.queue and each.kind is not distinct from g.kind
     where g.id = any ($1::bigint[])
     order by g.id
       for no key update of g
), clock as materialized (
    select count(*) as gates, clock_timestamp() as at from locked
)
select l.id, l.queue, l.kind, l.tenant, l.paused, extract(epoch from l.blocked_until - at)::float8 as blocked_for,
       l.rate, l.burst,
       coalesce(extract(epoch from l.full_at - at)::float8, coalesce(l.burst, 1) / l.rate, 0)::float8 as full_in,
       l.concurrency, l.in_use, coalesce(s.in_use, 0) as share, l.trips,
       case when l.opened_at is not null then extract(epoch from l.open_until - at)::float8 end as open_for,
       exists (select from worker.workers w where w.id = l.probe and w.gone_at is null and w.stopped_at is null) as probing,
       at
  from clock
 cross join locked l
  left join worker.gate_shares s on s.gate = l.id and s.worker = $2
 order by l.id;
