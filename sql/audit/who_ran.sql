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
select coalesce(w.name, 'worker ' || ran.worker) as worker, w.host, w.pid, w.version, ran.queue, ran.kind, ran.runs,
       ran.done, ran.retried, ran.dead, ran.other, ran.crashed, ran.lost, ran.mean_ms,
       ran.first_at::timestamptz(3), ran.last_at::timestamptz(3)
  from (select worker, queue, kind, count(*) filter (where outcome <> 'lost') as runs,
               count(*) filter (where outcome = 'done') as done,
               count(*) filter (where outcome = 'retry') as retried,
               count(*) filter (where outcome = 'dead') as dead,
               count(*) filter (where outcome in ('snooze', 'cancelled', 'released')) as other,
               count(*) filter (where outcome = 'crashed') as crashed,
               count(*) filter (where outcome = 'lost') as lost,
               round(1000 * avg(extract(epoch from ended_at - started_at)) filter (where outcome = 'done'), 1) as mean_ms,
               min(ended_at) as first_at, max(ended_at) as last_at
          from worker.attempt_log
         where ended_at > now() - coalesce(nullif(current_setting('duerow.since', true), ''), '24 hours')::interval
           and queue = coalesce(nullif(current_setting('duerow.queue', true), ''), queue)
           and kind = coalesce(nullif(current_setting('duerow.kind', true), ''), kind)
         group by worker, queue, kind) ran
  left join worker.workers w on w.id = ran.worker
 order by ran.last_at desc, ran.worker, ran.queue, ran.kind
 limit coalesce(nullif(current_setting('duerow.lines', true), ''), '100')::integer;
