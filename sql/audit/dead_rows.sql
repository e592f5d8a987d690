-- Which rows were given up, and why? The latest first.
--
-- A dead row stays until retention drops its day; `worker jobs retry <id>` runs it again. Many with one
-- fingerprint have one cause: see errors_top.
--
-- Columns
--   id, queue, kind, tenant
--   died_at      when it was given up
--   attempts     runs that it had
--   crashes      runs that ended with the death of their worker
--   error_type   class of the last error; WorkerGone when its worker died
--   fingerprint  class and place of the last error
--   message      its text
--
-- Parameters
--   since = 7 days    how far back to look
--   queue = (any)     this queue only
--   kind  = (any)     this kind only
--   lines = 50        most lines
select f.id, f.queue, f.kind, f.tenant, f.finished_at::timestamptz(3) as died_at, f.attempt as attempts, f.crashes,
       a.error_type, a.fingerprint, coalesce(a.message, f.last_error) as message
  from (select * from worker.jobs_finished
         where state = 'dead'
           and finished_at > now() - coalesce(nullif(current_setting('duerow.since', true), ''), '7 days')::interval
           and queue = coalesce(nullif(current_setting('duerow.queue', true), ''), queue)
           and kind = coalesce(nullif(current_setting('duerow.kind', true), ''), kind)
         order by finished_at desc
         limit coalesce(nullif(current_setting('duerow.lines', true), ''), '50')::integer) f
  -- One statement wrote both rows, so their times are equal: one partition is looked at, not all.
  left join lateral (
        select error_type, fingerprint, message from worker.attempts
         where source = 'jobs' and row_key = f.id::text and token = f.token and outcome = 'dead'
           and ended_at = f.finished_at
         limit 1) a on true
 order by f.finished_at desc, f.id;
