-- Which rows were given up, and why? The latest first.
--
-- A dead row stays until retention drops its day; `worker jobs retry <id>` runs it again. Many with one
-- fingerprint have one cause: see errors_top. A dead row of an adopted table stays in its table, until
-- somebody retries it (`worker rows retry <table> <key>`) or changes its due column.
--
-- Columns
--   id           a job's id, or the key of a row of an adopted table; then queue and kind are its name
--   queue, kind, tenant
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
with dead as (
    select f.id::text, f.queue, f.kind, f.tenant, f.finished_at as died_at, f.attempt, f.crashes,
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
    union all
    select a.row_key, a.source, a.source, a.tenant, a.ended_at, a.attempt, r.crashes, a.error_type, a.fingerprint, a.message
      from worker.adopted_rows('{dead}') r
      join worker.attempts a on a.source = r.source and a.row_key = r.row_key and a.token = r.token and a.outcome = 'dead'
     where a.ended_at > now() - coalesce(nullif(current_setting('duerow.since', true), ''), '7 days')::interval
       and a.source = coalesce(nullif(current_setting('duerow.queue', true), ''), a.source)
       and a.source = coalesce(nullif(current_setting('duerow.kind', true), ''), a.source)
)
select id, queue, kind, tenant, died_at::timestamptz(3), attempt as attempts, crashes, error_type, fingerprint, message
  from dead
 order by dead.died_at desc, length(id), id
 limit coalesce(nullif(current_setting('duerow.lines', true), ''), '50')::integer;
