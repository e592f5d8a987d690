-- What happened to this row, from the first to the last moment? One line per event, in order.
--
-- Columns
--   at       when
--   event    enqueued; started; done, retry, snooze, dead, ... as an attempt ended; worker gone (its heartbeat
--            stopped); operator: ... (somebody's deed); due, due later, running (as it stands now)
--   attempt  which run, where it belongs to one
--   who      the worker, or the person
--   detail   the error, the next time, the reason given
--
-- Parameters
--   row    = (required)   the row's id, or the key of a row in your own table
--   source = jobs         the name under which your own table was added
with asked as (
    select coalesce(nullif(current_setting('duerow.source', true), ''), 'jobs') as source,
           nullif(current_setting('duerow.row'), '') as row_key
), live as (
    select j.* from worker.jobs j where j.id = (select row_key::bigint from asked where source = 'jobs')
), finished as (
    select f.* from worker.jobs_finished f where f.id = (select row_key::bigint from asked where source = 'jobs')
), attempt as (
    select a.* from worker.attempts a, asked where a.source = asked.source and a.row_key = asked.row_key
), event as (
    select created_at as at, 0 as place, 'enqueued' as event, null::integer as attempt, null::bigint as worker,
           null::text as person, format('%s in queue %s, priority %s', kind, queue, priority) as detail
      from (select created_at, kind, queue, priority from live
            union all select created_at, kind, queue, priority from finished) known
    union all
    select started_at, 4, 'started', attempt, worker, null, null
      from attempt where started_at is not null and outcome <> 'lost'
    union all
    select ended_at, 2, outcome, attempt, worker, null,
           concat_ws('; ', nullif(concat_ws(': ', error_type, message), ''), 'again at ' || next_at::timestamptz(3))
      from attempt
    union all
    select coalesce(claimed_at, finished_at), 4, 'started', attempt, worker, null, null
      from finished where state = 'done'
    union all
    select finished_at, 5, state, attempt, worker, null,
           concat_ws('; ', format('in %s ms', run_ms), 'result ' || left(result::text, 200))
      from finished where state = 'done'
    union all
    select w.gone_at, 1, 'worker gone', null, w.id, null,
           format('no heartbeat for %s', date_trunc('milliseconds', w.gone_at - w.heartbeat_at))
      from worker.workers w
     where w.gone_at is not null and w.id in (select worker from attempt where outcome in ('crashed', 'dead'))
    union all
    select o.at, 3, 'operator: ' || o.action, null, null, o.actor, o.reason
      from worker.operator_actions o, asked
     where o.source = asked.source and o.target = asked.row_key
    union all
    select claimed_at, 4, 'running', attempt, owner, null, format('for %s', date_trunc('milliseconds', now() - claimed_at))
      from live where owner is not null
    union all
    select due_at, 6, case when due_at <= now() then 'due' else 'due later' end, null, null, null, last_error
      from live where owner is null
)
select e.at::timestamptz(3), e.event, e.attempt, coalesce(e.person, w.name, 'worker ' || e.worker) as who, e.detail
  from event e
  left join worker.workers w on w.id = e.worker
 order by e.at, e.place, e.attempt;
