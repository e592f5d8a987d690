-- Sets the limits of a scope, or its breaker, for the whole fleet, and tells the workers.
--
-- takes  $1 text: queue, $2 text: kind, $3 text: tenant, null for any, '*' for each; $4 float8: rate, $5 int: burst,
--        $6 int: concurrency; $7 int: trip_after, $8 float8: trip_share, $9 int: trip_runs, $10 float8: trip_window,
--        $11 float8: trip_pause, in seconds; each null for none; $12 text: who sets it, $13 text: why, or null;
--        $14 boolean: it comes from the code, whose settings an operator's outrank.
-- gives  queue, kind, tenant, changed.
with before as (
    select * from worker.gates
     where queue is not distinct from $1::text and kind is not distinct from $2::text and tenant is not distinct from $3::text
), written as (
    insert into worker.gates as g (queue, kind, tenant, rate, burst, concurrency, trip_after, trip_share, trip_runs,
                                   trip_window, trip_pause, set_by)
    values ($1, $2, $3, $4::float8, $5::int, $6::int, $7::int, $8::float8, $9::int, make_interval(secs => $10::float8),
            make_interval(secs => $11::float8), case when $14 then 'code' else $12::text end)
        on conflict on constraint gates_scope do update
       set rate = excluded.rate, burst = excluded.burst, concurrency = excluded.concurrency,
           trip_after = excluded.trip_after, trip_share = excluded.trip_share, trip_runs = excluded.trip_runs,
           trip_window = excluded.trip_window, trip_pause = excluded.trip_pause, set_by = excluded.set_by,
           opened_at = case when excluded.trip_after is null and excluded.trip_share is null then null else g.opened_at end
     where (not $14 or coalesce(g.set_by, 'code') = 'code')
       and (g.rate, g.burst, g.concurrency, g.trip_after, g.trip_share, g.trip_runs, g.trip_window, g.trip_pause, g.set_by)
           is distinct from
           (excluded.rate, excluded.burst, excluded.concurrency, excluded.trip_after, excluded.trip_share, excluded.trip_runs,
            excluded.trip_window, excluded.trip_pause, excluded.set_by)
    returning queue, kind, tenant
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $12::text, 'limit', 'gates', concat_ws(' ', 'queue ' || queue, 'kind ' || kind, 'tenant ' || tenant), $13::text
      from written
     where not $14
)
select $1::text as queue, $2::text as kind, $3::text as tenant, exists (select from written) as changed,
       case when exists (select from written) then pg_notify('duerow_gates', '') end as told;
