-- Writes how much of some gates' concurrency a worker holds.
--
-- takes  $1 bigint[] gates, $2 int[]: what it holds of each, $3 bigint: the worker's id.
-- gives  nothing.
with locked as (
    select g.id from worker.gates g where g.id = any ($1::bigint[]) order by g.id for no key update
), new as (
    select l.id, new.share, coalesce(s.in_use, 0) as before
      from locked l
      join unnest($1::bigint[], $2::int[]) as new(gate, share) on new.gate = l.id
      left join worker.gate_shares s on s.gate = l.id and s.worker = $3
), shares as (
    insert into worker.gate_shares as s (gate, worker, in_use)
    select id, $3, share from new where share <> before
        on conflict (gate, worker) do update set in_use = excluded.in_use
)
update worker.gates g
   set in_use = g.in_use + new.share - new.before
  from new
 where g.id = new.id and new.share <> new.before;
