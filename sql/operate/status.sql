-- The state of the whole in one row.
--
-- gives  due, running: jobs and rows of adopted tables; scheduled, retrying: jobs; oldest_due: seconds that the
--        first of the due has waited whose queue is not paused; dead_last_day: those that are dead still;
--        done_last_minute: as the last roll-up has it; workers and slots that are alive; paused: the paused
--        queues; unreadable: adopted tables that cannot be read.
with jobs as (
    select count(*) filter (where owner is null and due_at <= now()) as due,
           count(*) filter (where owner is null and due_at > now() and attempt = 0) as scheduled,
           count(*) filter (where owner is null and due_at > now() and attempt > 0) as retrying,
           count(*) filter (where owner is not null) as running,
           min(due_at) filter (where owner is null and due_at <= now() and queue <> all (array(
               select name from worker.queues where paused_at is not null))) as first_due
      from worker.jobs
), adopted as (
    select count(*) filter (where state = 'due') as due,
           count(*) filter (where state = 'running') as running,
           min(due_at) filter (where state = 'due' and source <> all (array(
               select name from worker.queues where paused_at is not null))) as first_due,
           coalesce(array_agg(source order by source) filter (where state = 'unreadable'), '{}') as unreadable
      from worker.adopted_rows('{due,running}')
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
       array(select name from worker.queues where paused_at is not null order by name) as paused,
       adopted.unreadable
  from jobs, adopted, alive;
