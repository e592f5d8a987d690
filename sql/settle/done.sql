-- Moves rows that are done from worker.jobs to worker.jobs_finished, under the fence.
--
-- takes  $1 bigint[] ids, $2 bigint[] tokens, $3 bigint: the worker's id, $4 int[] run times in ms,
--        $5 text[] results as JSON, or null.
-- gives  the ids whose claim was still ours, and busy: true for those that are ours but could not be
--        written, because somebody changed the row while this statement waited for its lock. They
--        are to be sent again.
-- missing rows: the claim was lost, or settled by an earlier try whose answer never came: ask confirm.sql.
--
-- The lateral subquery with LIMIT forces one index probe per id. As a plain join the planner, told
-- by the statistics that hardly any row has an owner, read all claimed rows once per result: 1.2 s
-- for 1,000 results, against 8 ms. A row that changes between the probe and the delete has another
-- ctid then, and is not deleted.
--
-- In a handler's own session now() is when its transaction began, before the handler ran: finished_at
-- is the statement's time.
with given as (
    select * from unnest($1::bigint[], $2::bigint[], $4::integer[], $5::text[]) as o(id, token, run_ms, result)
), gone as (
    delete from worker.jobs j
     using given o
     cross join lateral (
        select w.ctid from worker.jobs w
         where w.id = o.id and w.token = o.token and w.owner = $3
         limit 1) ours
     where j.ctid = ours.ctid and j.token = o.token and j.owner = $3
    returning j.*, o.run_ms, o.result
), finished as (
    insert into worker.jobs_finished
           (id, finished_at, due_at, claimed_at, worker, token, created_at, attempt, max_attempts, run_ms, priority,
            crashes, state, queue, kind, tenant, unique_key, trace, args, result, last_error)
    select id, statement_timestamp(), due_at, claimed_at, owner, token, created_at, attempt, max_attempts, run_ms,
           priority, crashes, 'done', queue, kind, tenant, unique_key, trace, args, result::jsonb, last_error
      from gone
    returning id
)
select id, false as busy from finished
union all
select o.id, true
  from given o
 cross join lateral (
    select from worker.jobs w
     where w.id = o.id and w.token = o.token and w.owner = $3
     limit 1) ours
 where (select count(*) from gone) < cardinality($1::bigint[])
   and not exists (select from gone where gone.id = o.id);
