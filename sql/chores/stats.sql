-- Rolls up the finished minutes since the last roll-up, at least the last two, at most an hour.
-- Running it twice gives the same figures.
with since as (
    select greatest(date_trunc('minute', now() - interval '1 hour'),  -- whole minutes: half a one would replace it
                    least(date_trunc('minute', now()) - interval '2 minutes', (select max(minute) from worker.stats))) as since
), ended as (
    select date_trunc('minute', finished_at) as minute, 'jobs' as source, queue, kind, state as outcome,
           run_ms::bigint as run_ms, extract(epoch from claimed_at - due_at) * 1000 as wait_ms
      from worker.jobs_finished, since
     where finished_at >= since and finished_at < date_trunc('minute', now())
    union all
    select date_trunc('minute', ended_at), source, queue, kind, outcome,
           extract(epoch from ended_at - started_at) * 1000, 0
      from worker.attempts, since
     where ended_at >= since and ended_at < date_trunc('minute', now())
       and (source <> 'jobs' or outcome not in ('dead', 'cancelled'))
)
insert into worker.stats as s (minute, source, queue, kind, outcome, count, run_ms, wait_ms)
select minute, source, queue, kind, outcome, count(*), coalesce(sum(run_ms), 0), coalesce(sum(greatest(wait_ms, 0)), 0)
  from ended
 group by minute, source, queue, kind, outcome
    on conflict (minute, source, queue, kind, outcome)
    do update set count = excluded.count, run_ms = excluded.run_ms, wait_ms = excluded.wait_ms
 where (s.count, s.run_ms, s.wait_ms) is distinct from (excluded.count, excluded.run_ms, excluded.wait_ms)
returning minute;
