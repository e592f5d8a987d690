-- Closes a breaker by hand, or ends a throttle, and tells the workers.
--
-- takes  as unlimit.sql.
-- gives  queue, kind, tenant, opened_at, blocked_until: as they were.
-- none   nothing was closed.
with before as (
    select id, opened_at, blocked_until from worker.gates
     where queue is not distinct from $1::text and kind is not distinct from $2::text and tenant is not distinct from $3::text
       and (opened_at is not null or blocked_until > now())
       for update
), written as (
    update worker.gates g
       set opened_at = null, open_until = null, probe = null, failures = 0, window_runs = 0, window_failed = 0,
           blocked_until = null, blocked_why = null
      from before
     where g.id = before.id
    returning g.queue, g.kind, g.tenant, before.opened_at, before.blocked_until
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $4::text, 'reset', 'gates', concat_ws(' ', 'queue ' || queue, 'kind ' || kind, 'tenant ' || tenant), $5::text
      from written
)
select queue, kind, tenant, opened_at, blocked_until, pg_notify('duerow_gates', '') is not null as told from written;
