-- What goes wrong most? Failed attempts by fingerprint (class and place of the error), most frequent first.
--
-- first_seen close to your last deploy tells a new error from an old one. Much retried and nothing dead
-- is a hiccup outside; dead means that somebody has to look: dead_rows, then timeline of example_row.
--
-- Columns
--   fingerprint
--   failures     attempts that ended so
--   rows_hit     rows that they belong to
--   retried      of the failures: tried again later
--   dead         of the failures: given up
--   crashed      of the failures: the worker died or fell silent
--   first_seen, last_seen   within the time looked at
--   kinds        which kinds fail so
--   message      of the latest
--   example_row  the latest row that failed so
--
-- Parameters
--   since = 24 hours   how far back to look
--   queue = (any)      this queue only
--   kind  = (any)      this kind only
--   lines = 20         most lines
with failures as (
    select fingerprint, source, row_key, count(*) as failures,
           count(*) filter (where outcome = 'retry') as retried,
           count(*) filter (where outcome = 'dead') as dead,
           count(*) filter (where outcome = 'crashed') as crashed,
           min(ended_at) as first_seen, max(ended_at) as last_seen, min(kind) as kind
      from worker.attempts
     where ended_at > now() - coalesce(nullif(current_setting('duerow.since', true), ''), '24 hours')::interval
       and outcome in ('retry', 'dead', 'crashed')
       and queue = coalesce(nullif(current_setting('duerow.queue', true), ''), queue)
       and kind = coalesce(nullif(current_setting('duerow.kind', true), ''), kind)
     group by fingerprint, source, row_key
), top as (
    select fingerprint, sum(failures)::bigint as failures, count(*) as rows_hit, sum(retried)::bigint as retried,
           sum(dead)::bigint as dead, sum(crashed)::bigint as crashed, min(first_seen) as first_seen,
           max(last_seen) as last_seen, array_agg(distinct kind) as kinds
      from failures
     group by fingerprint
     order by 2 desc, 1
     limit coalesce(nullif(current_setting('duerow.lines', true), ''), '20')::integer
)
select coalesce(t.fingerprint, '(none: the handler asked for it)') as fingerprint,
       t.failures, t.rows_hit, t.retried, t.dead, t.crashed,
       t.first_seen::timestamptz(3), t.last_seen::timestamptz(3),
       t.kinds, latest.message, latest.row_key as example_row
  from top t
  left join lateral (
        select a.message, a.row_key from worker.attempts a
         where a.ended_at = t.last_seen and a.fingerprint is not distinct from t.fingerprint
           and a.outcome in ('retry', 'dead', 'crashed')
         limit 1) latest on true
 order by t.failures desc, t.fingerprint;
