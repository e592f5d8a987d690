-- How did each run of this row end? One line per run, in order; the one that runs now comes last.
--
-- Columns
--   attempt     which run, from 1; one that cost no attempt (snooze, release) shares its number with the next
--   token       of the claim; grows with every claim, also with those that ran nothing
--   worker      who ran it
--   started_at, ended_at
--   took        from start to end; of a lost worker's run: until it was declared dead
--   outcome     done, retry, snooze, released, cancelled, dead, crashed (its worker died or fell silent),
--               lost (its result came too late and was refused), running
--   next_at     when the row was to run again
--   error_type, message
--
-- Parameters
--   row    = (required)   the row's id, or the key of a row in your own table
--   source = jobs         the name under which your own table was added
with asked as (
    select coalesce(nullif(current_setting('duerow.source', true), ''), 'jobs') as source,
           nullif(current_setting('duerow.row'), '') as row_key
), run as (
    select a.attempt, a.token, a.worker, a.started_at, a.ended_at, a.outcome, a.next_at, a.error_type, a.message
      from worker.attempts a, asked
     where a.source = asked.source and a.row_key = asked.row_key
    union all
    select f.attempt, f.token, f.worker, f.finished_at - make_interval(secs => f.run_ms / 1000.0), f.finished_at,
           f.state, null, null, null
      from worker.jobs_finished f
     where f.id = (select row_key::bigint from asked where source = 'jobs') and f.state = 'done'
    union all
    select j.attempt, j.token, j.owner, j.claimed_at, null, 'running', null, null, null
      from worker.jobs j
     where j.id = (select row_key::bigint from asked where source = 'jobs') and j.owner is not null
)
select r.attempt, r.token, coalesce(w.name, 'worker ' || r.worker) as worker,
       r.started_at::timestamptz(3), r.ended_at::timestamptz(3),
       date_trunc('milliseconds', coalesce(r.ended_at, now()) - r.started_at) as took,
       r.outcome, r.next_at::timestamptz(3), r.error_type, r.message
  from run r
  left join worker.workers w on w.id = r.worker
 order by r.token, r.ended_at;
