-- Lists the queues that have live jobs, are served by a live worker, or are paused. The rows of an adopted table
-- are a queue of its name.
--
-- gives  queue; due, scheduled, retrying, running: live rows by state; oldest_due: seconds that the first of the due
--        has waited; workers: live ones that serve it; paused_at, paused_by, reason.
with counted as (
    select queue,
           count(*) filter (where owner is null and due_at <= now()) as due,
           count(*) filter (where owner is null and due_at > now() and attempt = 0) as scheduled,
           count(*) filter (where owner is null and due_at > now() and attempt > 0) as retrying,
           count(*) filter (where owner is not null) as running,
           min(due_at) filter (where owner is null and due_at <= now()) as first_due
      from worker.jobs
     group by queue
     union all
    select source,
           count(*) filter (where state = 'due'),
           count(*) filter (where state = 'scheduled'),
           count(*) filter (where state = 'retrying'),
           count(*) filter (where state = 'running'),
           min(due_at) filter (where state = 'due')
      from worker.adopted_rows('{due,scheduled,retrying,running}')
     group by source
), served as (
    select queue, count(*) as workers
      from worker.workers w cross join unnest(w.queues) as queue
     where w.gone_at is null and w.stopped_at is null and w.heartbeat_at + w.lease >= now()
     group by queue
)
select queue, coalesce(due, 0) as due, coalesce(scheduled, 0) as scheduled, coalesce(retrying, 0) as retrying,
       coalesce(running, 0) as running, extract(epoch from now() - first_due)::float8 as oldest_due,
       coalesce(workers, 0) as workers, paused_at, paused_by, reason
  from counted
  full join served using (queue)
  full join (select name as queue, paused_at, paused_by, reason from worker.queues where paused_at is not null) paused
       using (queue)
 order by queue;
