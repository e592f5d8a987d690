-- Pauses a queue: nothing of it is claimed any more. What runs goes on.
--
-- takes  $1 text: the queue, $2 text: who asks, $3 text: why, or null.
-- gives  queue, paused_at, paused_by, reason; known: whether some job or worker names it; changed: false when it
--        was paused before.
with paused as (
    insert into worker.queues as q (name, paused_at, paused_by, reason)
    values ($1::text, now(), $2::text, $3::text)
        on conflict (name) do update set paused_at = now(), paused_by = excluded.paused_by, reason = excluded.reason
     where q.paused_at is null
    returning name, paused_at, paused_by, reason
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $2::text, 'pause', 'queues', name, $3::text from paused
)
select now_paused.*,
       exists (select from worker.jobs where queue = $1) or exists (
            select from worker.workers
             where $1 = any (queues) and gone_at is null and stopped_at is null) as known
  from (select name as queue, paused_at, paused_by, reason, true as changed from paused
        union all
        select name, paused_at, paused_by, reason, false from worker.queues
         where name = $1 and not exists (select from paused)) now_paused;
