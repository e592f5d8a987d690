-- Takes the limits and the breaker of a scope away, and tells the workers. What the code says of it holds again from
-- the next start of a worker on.
--
-- takes  $1 text: queue, $2 text: kind, $3 text: tenant; $4 text: who asks, $5 text: why, or null.
-- gives  queue, kind, tenant.
-- none   it had none.
with written as (
    update worker.gates
       set rate = null, burst = null, full_at = null, concurrency = null, trip_after = null, trip_share = null,
           trip_runs = null, trip_window = null, trip_pause = null, set_by = null, failures = 0, opened_at = null,
           open_until = null, probe = null
     where queue is not distinct from $1::text and kind is not distinct from $2::text and tenant is not distinct from $3::text
       and set_by is not null
    returning queue, kind, tenant
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $4::text, 'unlimit', 'gates', concat_ws(' ', 'queue ' || queue, 'kind ' || kind, 'tenant ' || tenant), $5::text
      from written
)
select queue, kind, tenant, pg_notify('duerow_gates', '') is not null as told from written;
