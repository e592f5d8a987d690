-- Declares workers dead whose lease ran out, and lists every worker that can hold no rows.
--
-- gives  id, name, newly: true for those declared dead just now.
--
-- The ids of workers that went in the last minutes are listed again: one that was frozen inside a
-- claim may have committed it after the sweep that declared it dead. For ten seconds after a
-- restart of Postgres nobody is declared dead: all heartbeats are old then, the workers are not.
with stale as (
    update worker.workers
       set gone_at = now()
     where gone_at is null and stopped_at is null
       and heartbeat_at + lease < now()
       and pg_postmaster_start_time() + least(lease, interval '10 seconds') < now()
    returning id, name
)
select id, name, true as newly from stale
union all
select id, name, false from worker.workers
 where coalesce(gone_at, stopped_at) > now() - greatest(lease, interval '3 minutes');
