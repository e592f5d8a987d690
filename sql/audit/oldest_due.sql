-- Which rows have waited longest, and why does nobody take them? The longest wait first.
--
-- why_not says what keeps a row from running: its queue is paused; no live worker serves its queue and
-- kind; or all slots are busy, in which case it is a matter of time. Of an adopted table that could not be
-- read it says so, in front of all others.
--
-- Columns
--   id          a job's id, or the key of a row of an adopted table; then queue and kind are its name
--   queue, kind, priority, tenant
--   due_at      since when the row may run
--   waiting     how long that is
--   attempt     runs that it has behind it
--   why_not     paused, no worker, waiting for a slot, or cannot be read
--   last_error  what the last run said, if one failed
--
-- Parameters
--   queue = (any)   this queue only
--   lines = 20      most lines
--
-- Reads a handful of rows per queue, kind and priority, and per adopted table, however many wait.
with recursive streams as (
    (select queue, kind, priority from worker.jobs order by queue, kind, priority limit 1)
    union all
    (select next.queue, next.kind, next.priority
       from streams s
      cross join lateral (
            select j.queue, j.kind, j.priority from worker.jobs j
             where (j.queue, j.kind, j.priority) > (s.queue, s.kind, s.priority)
             order by j.queue, j.kind, j.priority limit 1) next)
), oldest as (
    select j.*
      from streams s
     cross join lateral (
            select w.id, w.queue, w.kind, w.priority, w.tenant, w.due_at, w.attempt, w.last_error
              from worker.jobs w
             where w.queue = s.queue and w.kind = s.kind and w.priority = s.priority
               and w.due_at <= now() and w.owner is null
             order by w.due_at, w.id
             limit coalesce(nullif(current_setting('duerow.lines', true), ''), '20')::integer) j
     where s.queue = coalesce(nullif(current_setting('duerow.queue', true), ''), s.queue)
     order by j.due_at, j.id
     limit coalesce(nullif(current_setting('duerow.lines', true), ''), '20')::integer
), waiting as (
    select id::text, queue, kind, priority, tenant, due_at, attempt, last_error, false as unreadable from oldest
    union all
    select row_key, source, source, null, tenant, due_at, attempt, last_error, state = 'unreadable'
      from worker.adopted_rows('{due}', coalesce(nullif(current_setting('duerow.lines', true), ''), '20')::bigint)
     where source = coalesce(nullif(current_setting('duerow.queue', true), ''), source)
)
select o.id, o.queue, o.kind, o.priority, o.tenant, o.due_at::timestamptz(3),
       date_trunc('milliseconds', now() - o.due_at) as waiting, o.attempt,
       case when o.unreadable then 'cannot be read'
            when exists (select from worker.queues q where q.name = o.queue and q.paused_at is not null)
            then 'the queue is paused'
            when not exists (
                select from worker.workers w
                 where w.gone_at is null and w.stopped_at is null and w.draining_at is null
                   and w.heartbeat_at + w.lease > now()
                   and o.queue = any (w.queues) and o.kind = any (w.kinds))
            then 'no live worker serves it'
            else 'waiting for a slot' end as why_not,
       o.last_error
  from waiting o
 order by o.unreadable desc, o.due_at, length(o.id), o.id
 limit coalesce(nullif(current_setting('duerow.lines', true), ''), '20')::integer;
