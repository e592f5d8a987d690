-- Lists schedules, by name.
--
-- takes  $1 text: one name, or null for all.
-- gives  what each says; state: active, paused, ended (no tick is to come), broken (the worker can make no sense of it:
--        problem), unheld (it stands in the code of no live worker, and does not tick), retired (for so long that it
--        would begin anew); next_at, or null where it has not been worked out; last_tick_at, last_job_id and last_state,
--        of the job of its last tick; paused_at, paused_by, reason; now.
with named as materialized (
    select distinct unnest(w.schedules) as name
      from worker.workers w
     where w.gone_at is null and w.stopped_at is null and w.heartbeat_at + w.lease > now()
)
select s.name,
       case when s.problem is not null then 'broken'
            when s.retired_at is not null then 'retired'
            when s.paused_at is not null then 'paused'
            when s.ended_at is not null then 'ended'
            when s.origin = 'code' and s.name not in (select name from named) then 'unheld'
            else 'active' end as state,
       s.origin, s.cron, extract(epoch from s.every)::float8 as every, s.at, s.tz, s.counts_from, s.kind, s.queue,
       s.args, s.tick_as, s.priority, s.tenant, s.max_attempts, s.catch_up, s.catch_up_limit, s.overlap,
       extract(epoch from s.jitter)::float8 as jitter, s.next_at, s.ended_at, s.last_tick_at, s.last_job_id,
       last.state as last_state, s.paused_at, s.paused_by, s.reason, s.unheld_since, s.retired_at, s.problem,
       s.created_at, s.created_by, now() as now
  from worker.schedules s
  left join lateral (select j.state from worker.all_jobs j where j.id = s.last_job_id limit 1) last on true
 where $1::text is null or s.name = $1
 order by s.name;
