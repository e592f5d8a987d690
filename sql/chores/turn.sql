-- Asks for the fleet's turn to look from the beginning, which is dear while many dead rows lie there.
--
-- takes  $1 text: whose turns these are, $2 float8: seconds between two, $3 bigint: the worker's id.
-- gives  wait: 0, it is the caller's turn, or seconds until the next.
--
-- Who asks too early writes nothing and locks nothing; who does get it holds no lock afterwards.
with turn as (
    insert into worker.chores as c (name, last_run_at, last_worker)
    select $1, now(), $3
     where not exists (select from worker.chores last
                        where last.name = $1 and last.last_run_at > now() - make_interval(secs => $2))
        on conflict (name) do update set last_run_at = now(), last_worker = excluded.last_worker
     where c.last_run_at is null or c.last_run_at <= now() - make_interval(secs => $2)
    returning 0.0::float8 as wait
)
select coalesce(
    (select t.wait from turn t),
    (select greatest(0.01, $2 - extract(epoch from now() - last.last_run_at)::float8)
       from worker.chores last where last.name = $1),
    $2) as wait;
