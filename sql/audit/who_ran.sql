-- Which worker ran what, and how did it end? One line per worker, queue and kind, the latest first.
--
-- One worker with failures that the others do not have is a bad machine or a bad release: compare version
-- and host. For the runs of one row see attempts_of.
--
-- Columns
--   worker, host, pid, version
--   queue, kind
--   runs         attempts that ended in the time looked at
--   done, retried, dead
--   other        snoozed, cancelled, released at a stop
--   crashed      cut short: the worker died or fell silent
--   lost         results that came too late and were refused
--   mean_ms      of the runs that are done, without the wait
--   first_at, last_at   first and last end of a run
--
-- Parameters
--   since = 24 hours   how far back to look
--   queue = (any)      this queue only
--   kind  = (any)      this kind only
--   lines = 100        most lines
with ended as (
    select worker, queue, kind, 'done' as outcome, count(*) as runs, sum(run_ms) as run_ms,
           min(finished_at) as first_at, max(finished_at) as last_at
      from worker.jobs_finished
     where state = 'done'
       and finished_at > now() - coalesce(nullif(current_setting('duerow.since', true), ''), '24 hours')::interval
       and queue = coalesce(nullif(current_setting('duerow.queue', true), ''), queue)
       and kind = coalesce(nullif(current_setting('duerow.kind', true), ''), kind)
     group by worker, queue, kind
    union all
    select worker, queue, kind, outcome, count(*),
           sum(1000 * extract(epoch from ended_at - started_at)) filter (where outcome = 'done'),
           min(ended_at), max(ended_at)
      from worker.attempts
     where ended_at > now() - coalesce(nullif(current_setting('duerow.since', true), ''), '24 hours')::interval
       and queue = coalesce(nullif(current_setting('duerow.queue', true), ''), queue)
       and kind = coalesce(nullif(current_setting('duerow.kind', true), ''), kind)
     group by worker, queue, kind, outcome
), ran as (
    select worker, queue, kind,
           coalesce(sum(runs) filter (where outcome <> 'lost'), 0)::bigint as runs,
           coalesce(sum(runs) filter (where outcome = 'done'), 0)::bigint as done,
           coalesce(sum(runs) filter (where outcome = 'retry'), 0)::bigint as retried,
           coalesce(sum(runs) filter (where outcome = 'dead'), 0)::bigint as dead,
           coalesce(sum(runs) filter (where outcome in ('snooze', 'cancelled', 'released')), 0)::bigint as other,
           coalesce(sum(runs) filter (where outcome = 'crashed'), 0)::bigint as crashed,
           coalesce(sum(runs) filter (where outcome = 'lost'), 0)::bigint as lost,
           round(sum(run_ms) / nullif(sum(runs) filter (where outcome = 'done'), 0), 1) as mean_ms,
           min(first_at) as first_at, max(last_at) as last_at
      from ended
     group by worker, queue, kind
)
select coalesce(w.name, 'worker ' || ran.worker) as worker, w.host, w.pid, w.version, ran.queue, ran.kind, ran.runs,
       ran.done, ran.retried, ran.dead, ran.other, ran.crashed, ran.lost, ran.mean_ms,
       ran.first_at::timestamptz(3), ran.last_at::timestamptz(3)
  from ran
  left join worker.workers w on w.id = ran.worker
 order by ran.last_at desc, ran.worker, ran.queue, ran.kind
 limit coalesce(nullif(current_setting('duerow.lines', true), ''), '100')::integer;
