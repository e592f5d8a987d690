-- Inserts one job without a unique key. What plain.sql does, at a third of its cost for a lone row.
--
-- takes  $1 text args as JSON, $2 text kind, $3 text queue, $4 smallint priority, $5 timestamptz due_at,
--        $6 float8 delay in seconds, $7 text tenant, $8 int max_attempts, $9 text trace; null from $5 on for none.
-- gives  the id. A job due within a minute notifies: an idle worker then sleeps until that very moment.
-- none   cannot be.
insert into worker.jobs (kind, args, queue, priority, due_at, tenant, max_attempts, trace)
values ($2::text, $1::text::jsonb, $3::text, $4::smallint,
        coalesce($5::timestamptz, now() + make_interval(secs => $6::float8), now()),
        $7::text, $8::integer, $9::text)
returning id, case when due_at <= now() + interval '1 minute' then pg_notify('duerow', queue) end;
