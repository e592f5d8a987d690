-- Closes a scope for a while, because a handler was told to come back later, and tells all workers.
--
-- takes  $1 text queue, $2 text kind, $3 text tenant, each or null; $4 float8: seconds, $5 text: why.
-- gives  blocked_until.
with closed as (
    insert into worker.gates as g (queue, kind, tenant, blocked_until, blocked_why)
    values ($1::text, $2::text, $3::text, clock_timestamp() + make_interval(secs => $4), $5::text)
        on conflict on constraint gates_scope do update
       set blocked_until = greatest(g.blocked_until, excluded.blocked_until), blocked_why = excluded.blocked_why
    returning blocked_until
)
select blocked_until, pg_notify('duerow_gates', '') from closed;
