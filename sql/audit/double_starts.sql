-- Did two workers ever hold one row at the same time, or was one claim settled twice? Must be empty.
--
-- A row runs again after a failure, a release, or once its worker has been declared dead: that is no
-- finding, even if the dead worker was only frozen and its handler went on (its result is refused, see
-- who_ran, column lost). A finding is a claim that began before the one before it was given up.
-- Somebody has then written to worker.jobs by hand, a commit was lost in a failover, or Duerow has an
-- error that we want to hear of.
--
-- Columns
--   source, row_key
--   finding      overlap: the next claim began before this one had ended
--                taken: it was claimed anew while its handler ran, and nothing had given it up
--                settled twice: two results were accepted under one claim
--                two workers: two workers ended one claim
--   token, worker          the claim
--   held_from, held_until  from its start to its end
--   next_token, next_worker, next_from   the claim that came too early, if it was one
--
-- Parameters
--   since = 24 hours   how far back to look
--   queue = (any)      this queue only
--
-- Sees what the tables hold: not a thread that was abandoned at its timeout and goes on unseen. Takes two
-- seconds for a million rows of which every tenth was tried again.
with line as materialized (
    select source, row_key, token, worker, outcome, started_at as held_from, ended_at
      from worker.attempts
     where ended_at > now() - coalesce(nullif(current_setting('duerow.since', true), ''), '24 hours')::interval
       and queue = coalesce(nullif(current_setting('duerow.queue', true), ''), queue)
), done as not materialized (
    select id, token, worker, claimed_at, finished_at
      from worker.jobs_finished
     where state = 'done'
       and finished_at > now() - coalesce(nullif(current_setting('duerow.since', true), ''), '24 hours')::interval
       and queue = coalesce(nullif(current_setting('duerow.queue', true), ''), queue)
), again as (
    -- Most rows were claimed once and are done: they can be told at a glance and are left out.
    select row_key::bigint as id from line where source = 'jobs'
    union
    select id from done where token > 1
), known as (
    select * from line
    union all
    select 'jobs', id::text, token, worker, 'done', claimed_at, finished_at from done where id in (select id from again)
    union all
    select 'jobs', id::text, token, owner, 'running', claimed_at, null
      from worker.jobs
     where owner is not null and token > 1
       and queue = coalesce(nullif(current_setting('duerow.queue', true), ''), queue)
), claim as (
    select source, row_key, token, min(worker) as worker, min(worker) <> max(worker) as shared,
           count(*) filter (where outcome not in ('lost', 'running')) as results,
           min(held_from) as held_from,
           -- A claim's now() can be a little older than what it sees, so one that follows a release at
           -- once may seem to come before it.
           min(ended_at - case outcome when 'released' then interval '100 milliseconds' else '0' end)
               filter (where outcome <> 'lost') as given_up,
           max(ended_at) as held_until,
           bool_and(outcome = 'lost') and min(held_from) < max(ended_at) as only_lost
      from known
     group by source, row_key, token
), pair as (
    select c.*,
           lead(token) over later as next_token, lead(worker) over later as next_worker,
           lead(held_from) over later as next_from
      from claim c
    window later as (partition by source, row_key order by token)
)
select p.source, p.row_key,
       case when p.next_from < p.given_up then 'overlap'
            when p.results > 1 then 'settled twice'
            when p.shared then 'two workers'
            else 'taken' end as finding,
       p.token, coalesce(w.name, 'worker ' || p.worker) as worker, p.held_from, p.held_until,
       p.next_token, coalesce(n.name, 'worker ' || p.next_worker) as next_worker, p.next_from
  from pair p
  left join worker.workers w on w.id = p.worker
  left join worker.workers n on n.id = p.next_worker
 where p.next_from < p.given_up
    or p.results > 1
    or p.shared
    or (p.only_lost and p.next_from < p.held_until
        -- Its end may lie before the time looked at.
        and not exists (select from worker.attempts a
                         where a.source = p.source and a.row_key = p.row_key and a.token = p.token
                           and a.outcome <> 'lost'))
 order by p.held_from, p.source, p.row_key, p.token;
