-- Tells which claims were settled as final under our token, after a settle that matched fewer rows
-- than it was given, or whose answer never came.
--
-- takes  $1 bigint[] ids, $2 bigint[] tokens, $3 bigint: the worker's id.
-- gives  the ids whose final row carries that very claim.
-- missing rows: the claim was lost; nothing was written for it.
select o.id
  from unnest($1::bigint[], $2::bigint[]) as o(id, token)
 cross join lateral (
    select from worker.jobs_finished f
     where f.id = o.id and f.token = o.token and f.worker = $3
     limit 1) ours;
