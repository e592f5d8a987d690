-- Records results that were refused because the claim was no longer ours, and counts them on the
-- worker that brought them.
--
-- takes  parallel arrays, one entry a refused result: $1 text[] sources, $2 text[] row keys,
--        $3 text[] queues, $4 text[] kinds, $5 int[] attempts, $6 bigint[] tokens, $7 bigint[] owners,
--        $8 int[] run times in ms, $9 text[] what was refused.
with refused as (
    select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::bigint[],
                         $7::bigint[], $8::integer[], $9::text[])
           as r(source, row_key, queue, kind, attempt, token, owner, run_ms, what)
), counted as (
    update worker.workers w set lost = w.lost + c.count
      from (select owner, count(*) from refused group by owner) c
     where w.id = c.owner
)
insert into worker.attempts (source, row_key, queue, kind, attempt, token, worker, outcome, started_at, message)
select source, row_key, queue, kind, attempt, token, owner, 'lost', now() - make_interval(secs => run_ms / 1000.0),
       'refused: ' || what
  from refused;
