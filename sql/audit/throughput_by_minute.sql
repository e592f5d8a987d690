-- How much was done, minute by minute, and when did it stop? One line per minute, the latest first.
--
-- A hole is an outage or an empty queue: due_now tells which. Retries that rise while done falls: errors_top.
--
-- Columns
--   minute
--   done
--   retried       failed, to be tried again
--   dead          given up
--   other         snoozed, cancelled, released at a stop
--   crashed       cut short: the worker died or fell silent
--   mean_run_ms   of the runs that are done
--   mean_wait_ms  from due to claimed, of the jobs that are done; of adopted tables it is not kept
--
-- Parameters
--   since = 60 minutes   how far back to look; whole minutes
--   queue = (any)        this queue only
--   kind  = (any)        this kind only
--
-- Older minutes come from worker.stats, which outlives the rows; the last ones from the rows themselves.
with asked as materialized (
    select date_trunc('minute', now() - coalesce(nullif(current_setting('duerow.since', true), ''), '60 minutes')::interval) as since,
           coalesce((select max(minute) from worker.stats) - interval '1 minute', '-infinity') as rolled
), ended as (
    select minute, source, outcome, count, run_ms, wait_ms
      from worker.stats
     where minute >= (select since from asked) and minute < (select rolled from asked)
       and queue = coalesce(nullif(current_setting('duerow.queue', true), ''), queue)
       and kind = coalesce(nullif(current_setting('duerow.kind', true), ''), kind)
    union all
    select date_trunc('minute', finished_at), 'jobs', state, count(*), sum(run_ms),
           sum(greatest(0, 1000 * extract(epoch from claimed_at - due_at)))
      from worker.jobs_finished
     where finished_at >= (select greatest(since, rolled) from asked)
       and queue = coalesce(nullif(current_setting('duerow.queue', true), ''), queue)
       and kind = coalesce(nullif(current_setting('duerow.kind', true), ''), kind)
     group by 1, 2, 3
    union all
    select date_trunc('minute', ended_at), source, outcome, count(*), sum(1000 * extract(epoch from ended_at - started_at)), 0
      from worker.attempts
     where ended_at >= (select greatest(since, rolled) from asked)
       and (source <> 'jobs' or outcome not in ('dead', 'cancelled'))
       and queue = coalesce(nullif(current_setting('duerow.queue', true), ''), queue)
       and kind = coalesce(nullif(current_setting('duerow.kind', true), ''), kind)
     group by 1, 2, 3
)
select minute,
       coalesce(sum(count) filter (where outcome = 'done'), 0)::bigint as done,
       coalesce(sum(count) filter (where outcome = 'retry'), 0)::bigint as retried,
       coalesce(sum(count) filter (where outcome = 'dead'), 0)::bigint as dead,
       coalesce(sum(count) filter (where outcome in ('snooze', 'cancelled', 'released')), 0)::bigint as other,
       coalesce(sum(count) filter (where outcome = 'crashed'), 0)::bigint as crashed,
       round(sum(run_ms) filter (where outcome = 'done') / nullif(sum(count) filter (where outcome = 'done'), 0), 1) as mean_run_ms,
       round(sum(wait_ms) filter (where outcome = 'done' and source = 'jobs')
             / nullif(sum(count) filter (where outcome = 'done' and source = 'jobs'), 0), 1) as mean_wait_ms
  from generate_series((select since from asked), now(), '1 minute') as minute
  left join ended using (minute)
 group by minute
 order by minute desc;
