-- Returns every row that a worker still holds: the last act of a process whose grace has passed
-- while its event loop is blocked.
--
-- takes  $1 bigint: the worker's id.
-- gives  released: how many rows went back, each without the attempt it had begun; left_over: none, for it waits for
--        those that somebody has locked.
with freed as (
    update worker.jobs j set owner = null, claimed_at = null, attempt = j.attempt - 1
      from (select id, claimed_at from worker.jobs where owner = $1 for no key update) held
     where j.id = held.id and j.owner = $1
    returning j.id, queue, kind, tenant, j.attempt + 1 as attempt, token, held.claimed_at
), recorded as (
    insert into worker.attempts (started_at, row_key, queue, kind, tenant, attempt, token, worker, outcome, message)
    select claimed_at, id::text, queue, kind, tenant, attempt, token, $1, 'released', 'grace passed while the handler ran' from freed
)
select count(*) as released, 0::bigint as left_over from freed;
