-- Gives back periods that were booked for jobs which were then not made.
--
-- takes  $1 bigint[]: the ids that they were booked under; $2 text[] kind and $3 text[] unique_key of each.
-- gives  nothing.
-- missing rows: nothing to give back; no harm.
delete from worker.unique_keys u
 using unnest($1::bigint[], $2::text[], $3::text[]) as vain(job_id, kind, unique_key)
 where u.kind = vain.kind and u.unique_key = vain.unique_key and u.job_id = vain.job_id;
