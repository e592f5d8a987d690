-- Begins a chore, if it is due and nobody else is at it. The rest of its transaction is the chore;
-- the lock ends with it, however it ends.
--
-- takes  $1 text: the chore, $2 float8: seconds between two runs, $3 bigint: the worker's id.
-- gives  one row: do it.
-- none   it is not due, or another worker is doing it.
insert into worker.chores as c (name, last_run_at, last_worker)
select $1, now(), $3
 where pg_try_advisory_xact_lock(hashtextextended('duerow chore ' || $1, 0))
    on conflict (name) do update set last_run_at = now(), last_worker = excluded.last_worker
 where c.last_run_at is null or c.last_run_at <= now() - make_interval(secs => $2 * 0.9)
returning name;
