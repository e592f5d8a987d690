-- Lets what was paused be claimed again, and tells the workers.
--
-- takes  as pause.sql.
-- gives  queue, kind, tenant, paused_at: since when it had been paused.
-- none   it is not paused.
with before as (
    select id, paused_at
      from worker.gates
     where queue is not distinct from $1::text and kind is not distinct from $2::text
       and tenant is not distinct from $3::text and paused_at is not null
       for update
), resumed as (
    update worker.gates g
       set paused_at = null, paused_by = null, reason = null
      from before
     where g.id = before.id
    returning g.queue, g.kind, g.tenant, before.paused_at
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $4::text, 'resume', 'gates', concat_ws(' ', 'queue ' || queue, 'kind ' || kind, 'tenant ' || tenant), $5::text
      from resumed
)
select queue, kind, tenant, paused_at, pg_notify('duerow_gates', '') is not null as woken from resumed;
