-- Everything about one job, but its attempts: those are told by audit/attempts_of.sql.
--
-- takes  $1 bigint: the id.
-- none   no job has that id, or retention has dropped it.
select id, state, queue, kind, args, result, priority, tenant, attempt, max_attempts, crashes, created_at, due_at,
       claimed_at, finished_at, run_ms, worker, token, unique_key, trace, last_error
  from worker.all_jobs
 where id = $1::bigint;
