-- Records results that were refused because the claim was no longer ours.
--
-- takes  $1 text[] row keys, $2 text[] queues, $3 text[] kinds, $4 int[] attempts, $5 bigint[] tokens,
--        $6 bigint: the worker's id, $7 int[] run times in ms, $8 text[] what was refused, $9 text: the source.
with counted as (
    update worker.workers set lost = lost + cardinality($1::text[]) where id = $6
)
insert into worker.attempts (source, row_key, queue, kind, attempt, token, worker, outcome, started_at, message)
select $9, row_key, queue, kind, attempt, token, $6, 'lost', now() - make_interval(secs => run_ms / 1000.0),
       'refused: ' || refused
  from unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::bigint[], $7::integer[], $8::text[])
       as l(row_key, queue, kind, attempt, token, run_ms, refused);
