-- Renews the lease on everything that this worker holds.
--
-- takes  $1 bigint: the worker's id, $2 int: rows running, $3 bigint: rows settled since the start,
--        $4 boolean: draining.
-- gives  one row: the claims on running rows that an operator asked to stop, as an array of texts
--        "source token key". One stays in it until its row is settled; then it is marked as handled.
-- none   this worker was declared dead, its rows run elsewhere: cancel everything, register anew.
with handled as (
    update worker.operator_actions a
       set handled_at = now()
     where a.worker = $1 and a.handled_at is null
       and case a.source
           when 'jobs' then not exists (
                select from worker.jobs j
                 where j.id = case a.source when 'jobs' then a.target::bigint end
                   and j.owner = a.worker and j.token = a.token)
           else exists (  -- each run of an adopted table's row leaves an attempt, whatever its end
                select from worker.attempts e
                 where e.source = a.source and e.row_key = a.target and e.token = a.token)
                or a.at < now() - interval '1 day'  -- it never ran, and was given back
           end
)
update worker.workers w
   set heartbeat_at = now(), running = $2, settled = $3,
       draining_at = case when $4::boolean then coalesce(draining_at, now()) end
 where id = $1 and gone_at is null
returning (select coalesce(array_agg(a.source || ' ' || a.token || ' ' || a.target), '{}')
             from worker.operator_actions a
            where a.worker = w.id and a.handled_at is null) as cancel;
