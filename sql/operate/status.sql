-- The state of the whole in one row.
--
-- gives  due, running: jobs and rows of adopted tables; scheduled, retrying: jobs; oldest_due: seconds that the
--        first of the due has waited that is not paused; dead_last_day: those that are dead still;
--        done_last_minute: as the last roll-up has it; workers and slots that are alive; paused: the paused
--        queues, kinds and tenants; unreadable: adopted tables that cannot be read.
with jobs as (
    select count(*) filter (where owner is null and due_at <= now()) as due,
           count(*) filter (where owner is null and due_at > now() and attempt = 0) as scheduled,
           count(*) filter (where owner is null and due_at > now() and attempt > 0) as retrying,
           count(*) filter (where owner is not null) as running,
           min(due_at) filter (where owner is null and due_at <= now()
               and ((select count(*) = 0 from worker.gates where paused_at is not null)
                    or not exists (
                        select from worker.gates g
                         where g.paused_at is not null and (g.queue is null or g.queue = j.queue)
                           and (g.kind is null or g.kind = j.kind) and (g.tenant is null or g.tenant = j.tenant)))) as first_due
      from worker.jobs j
), adopted as (
    select count(*) filter (where state = 'due') as due,
           count(*) filter (where state = 'running') as running,
           min(due_at) filter (where state = 'due' and not exists (
               select from worker.gates g
                where g.paused_at is not null and coalesce(g.queue, r.source) = r.source
                  and coalesce(g.kind, r.source) = r.source and (g.tenant is null or g.tenant = r.tenant))) as first_due,
           coalesce(array_agg(source order by source) filter (where state = 'unreadable'), '{}') as unreadable
      from worker.adopted_rows('{due,running}') r
), alive as (
    select count(*) as workers, coalesce(sum(slots), 0) as slots,
           count(*) filter (where draining_at is not null) as draining
      from worker.workers
     where gone_at is null and stopped_at is null and heartbeat_at + lease >= now()
)
select now() as at, jobs.due + adopted.due as due, jobs.scheduled, jobs.retrying, jobs.running + adopted.running as running,
       extract(epoch from now() - least(jobs.first_due, adopted.first_due))::float8 as oldest_due,
       (select count(*) from worker.jobs_finished
         where state = 'dead' and finished_at > now() - interval '1 day')
       + (select count(*)
            from worker.adopted_rows('{dead}') r
            join worker.attempts a on a.source = r.source and a.row_key = r.row_key and a.token = r.token and a.outcome = 'dead'
           where a.ended_at > now() - interval '1 day') as dead_last_day,
       (select coalesce(sum(count), 0)::bigint from worker.stats
         where outcome = 'done' and minute = date_trunc('minute', now()) - interval '1 minute') as done_last_minute,
       alive.workers, alive.slots, alive.draining,
       array(select concat_ws(' ', queue, 'kind ' || kind, 'tenant ' || tenant) from worker.gates
              where paused_at is not null order by 1) as paused,
       adopted.unreadable
  from jobs, adopted, alive;
