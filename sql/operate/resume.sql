-- Lets a paused queue be claimed from again, and wakes its workers.
--
-- takes  $1 text: the queue, $2 text: who asks, $3 text: why, or null.
-- gives  queue, paused_at: since when it had been paused.
-- none   it is not paused.
with before as (
    select name, paused_at from worker.queues where name = $1::text and paused_at is not null for update
), resumed as (
    update worker.queues q
       set paused_at = null, paused_by = null, reason = null
      from before
     where q.name = before.name
    returning before.name, before.paused_at
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $2::text, 'resume', 'queues', name, $3::text from resumed
)
select name as queue, paused_at, pg_notify('duerow', name) is not null as woken from resumed;
