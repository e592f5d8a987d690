-- Lists jobs, live and finished, the newest first.
--
-- takes  each may be null for any: $1 text[] states (due, scheduled, retrying, running, done, dead,
--        cancelled), $2 text queue, $3 text kind, $4 text tenant, $5 float8: finished, or where live
--        created, no more seconds ago than this, $6 text: class of the error that the last attempt ended
--        with; $7 int: how many.
-- gives  id, state and what the table of `worker jobs list` shows.
--
-- In the order of the id because each table has an index on it: the newest of millions are found at once.
select j.id, j.state, j.queue, j.kind, j.priority, j.tenant, j.attempt, j.crashes, j.due_at, j.claimed_at,
       j.finished_at, j.created_at, j.worker, j.run_ms, j.unique_key, j.last_error
  from worker.all_jobs j
 where ($1::text[] is null or j.state = any ($1::text[]))
   and ($2::text is null or j.queue = $2)
   and ($3::text is null or j.kind = $3)
   and ($4::text is null or j.tenant = $4)
   and ($5::float8 is null
        or j.finished_at >= now() - make_interval(secs => $5)
        or j.finished_at is null and j.created_at >= now() - make_interval(secs => $5))
   and ($6::text is null
        or exists (select from worker.attempts a
                    where a.source = 'jobs' and a.row_key = j.id::text and a.token = j.token and a.error_type = $6))
 order by j.id desc
 limit $7::integer;
