-- Tells which claims were settled under our token by an earlier try whose answer never came.
--
-- takes  $1 bigint: the worker's id, $2 bigint[] tokens, $3 text[] row keys, $4... the key's columns
--        as arrays.
-- gives  the keys of those, and the outcome as it was written.
--
-- What a sweep recorded carries the same claim: nobody settled that.
select {key_aliases}, ours.outcome
  from unnest($2::bigint[], $3::text[], {key_arrays}) as o(token, row_key, {key_aliases})
 cross join lateral (
    select a.outcome from worker.attempts a
     where a.source = {name} and a.row_key = o.row_key and a.token = o.token and a.worker = $1
       and a.outcome not in ('lost', 'crashed') and a.error_type is distinct from 'WorkerGone'
     limit 1) ours;
