-- Pauses a queue, a kind, a tenant, or what two of them have in common: nothing of it is claimed any more. What runs
-- goes on; what was claimed and has not started is given back.
--
-- takes  $1 text: queue, $2 text: kind, $3 text: tenant, null for any; $4 text: who asks, $5 text: why, or null.
-- gives  queue, kind, tenant, paused_at, paused_by, reason; known: whether some job or worker names the queue and kind;
--        changed: false when it was paused before.
with paused as (
    insert into worker.gates as g (queue, kind, tenant, paused_at, paused_by, reason)
    values ($1::text, $2::text, $3::text, now(), $4::text, $5::text)
        on conflict on constraint gates_scope do update
       set paused_at = now(), paused_by = excluded.paused_by, reason = excluded.reason
     where g.paused_at is null
    returning g.id, queue, kind, tenant, paused_at, paused_by, reason
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $4::text, 'pause', 'gates', concat_ws(' ', 'queue ' || queue, 'kind ' || kind, 'tenant ' || tenant), $5::text
      from paused
), now_paused as (
    select *, true as changed from paused
    union all
    select id, queue, kind, tenant, paused_at, paused_by, reason, false
      from worker.gates
     where queue is not distinct from $1 and kind is not distinct from $2 and tenant is not distinct from $3
       and not exists (select from paused)
)
select p.queue, p.kind, p.tenant, p.paused_at, p.paused_by, p.reason, p.changed,
       pg_notify('duerow_gates', '') is not null
       and (exists (select from worker.jobs j
                     where (p.queue is null or j.queue = p.queue) and (p.kind is null or j.kind = p.kind)
                       and (p.tenant is null or j.tenant = p.tenant))
            or (p.tenant is null and exists (
                select from worker.workers w
                 where (p.queue is null or p.queue = any (w.queues)) and (p.kind is null or p.kind = any (w.kinds))
                   and w.gone_at is null and w.stopped_at is null))) as known
  from now_paused p;
