-- Writes what a claim has taken from gates that its transaction has locked.
--
-- takes  $1 bigint[] gates; $2 timestamptz[]: when each was read, $3 float8[]: seconds from then until its bucket is
--        full, null to leave it; $4 int[] in_use; $5 int[]: what the worker holds of it; $6 boolean[]: the worker tries
--        its breaker; $7 bigint: the worker's id.
-- gives  nothing.
with new as (
    select * from unnest($1::bigint[], $2::timestamptz[], $3::float8[], $4::int[], $5::int[], $6::boolean[])
                  as new(gate, at, full_in, in_use, share, probe)
), shares as (
    insert into worker.gate_shares as s (gate, worker, in_use)
    select gate, $7, share from new
        on conflict (gate, worker) do update set in_use = excluded.in_use where s.in_use <> excluded.in_use
)
update worker.gates g
   set full_at = coalesce(new.at + make_interval(secs => new.full_in), g.full_at), in_use = new.in_use,
       probe = case when new.probe then $7 else g.probe end,
       blocked_until = case when g.blocked_until > new.at then g.blocked_until end
  from new
 where g.id = new.gate;
