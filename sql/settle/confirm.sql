-- Tells which claims were settled under our token, after a settle that matched fewer rows than it was
-- given, or whose answer never came.
--
-- takes  $1 bigint[] ids, $2 bigint[] tokens, $3 bigint: the worker's id.
-- gives  id, outcome: as it was written for that very claim, by an earlier try or by the handler's
--        own session.
-- missing rows: the claim was lost; nothing was written for it.
--
-- A row that a sweep ended carries the same claim, but no run time: nobody settled it.
select o.id, ours.outcome
  from unnest($1::bigint[], $2::bigint[]) as o(id, token)
 cross join lateral (
    (select f.state as outcome from worker.jobs_finished f
      where f.id = o.id and f.token = o.token and f.worker = $3 and f.run_ms is not null
      limit 1)
    union all
    (select a.outcome from worker.attempts a
      where a.source = 'jobs' and a.row_key = o.id::text and a.token = o.token and a.worker = $3
        and a.outcome in ('retry', 'snooze', 'released')
      limit 1)
     limit 1) ours;
