-- Writes every transition but done, under the fence, and records the attempt.
--
-- takes  $1 bigint[] ids, $2 bigint[] tokens, $3 bigint: the worker's id, $4 text[] outcomes
--        (retry, snooze, released, dead, cancelled), $5 timestamptz[] next due times or null,
--        $6 float8[] seconds until the next due time or null (both null: due_at stays),
--        $7 int[] attempts given back (1 for snooze and release, and where the handler was not run), $8 int[] run times in ms (null: the
--        handler never started, nothing is recorded), $9 text[] error types, $10 text[] messages,
--        $11 text[] fingerprints, $12 text[] tracebacks.
-- gives  the ids whose claim was still ours, and busy: true for those to be sent again (see done.sql).
-- missing rows: the claim was lost; nothing was written for it.
--
-- In a handler's own session now() is when its transaction began, before the handler ran: the times
-- are the statement's.
with given as (
    select * from unnest($1::bigint[], $2::bigint[], $4::text[], $5::timestamptz[], $6::float8[], $7::integer[],
                         $8::integer[], $9::text[], $10::text[], $11::text[], $12::text[])
           as o(id, token, outcome, next_at, delay, refund, run_ms, error_type, message, fingerprint, traceback)
), outcome as (
    select o.*, ours.place
      from given o
     cross join lateral (  -- one probe per id whatever the statistics say: see done.sql
        select w.ctid as place from worker.jobs w
         where w.id = o.id and w.token = o.token and w.owner = $3
         limit 1) ours
), kept as (
    update worker.jobs j
       set owner = null, claimed_at = null,
           due_at = coalesce(o.next_at, statement_timestamp() + make_interval(secs => o.delay), j.due_at),
           attempt = j.attempt - o.refund,
           last_error = coalesce(o.message, j.last_error)
      from outcome o
     where j.ctid = o.place and j.token = o.token and j.owner = $3 and o.outcome in ('retry', 'snooze', 'released')
    returning j.id, j.queue, j.kind, j.tenant, j.attempt + o.refund as attempt, j.token, j.due_at as next_at, o.outcome,
              o.run_ms, o.error_type, o.message, o.fingerprint, o.traceback
), gone as (
    delete from worker.jobs j
     using outcome o
     where j.ctid = o.place and j.token = o.token and j.owner = $3 and o.outcome in ('dead', 'cancelled')
    returning j.*, o.refund, o.outcome, o.run_ms, o.error_type, o.message, o.fingerprint, o.traceback
), finished as (
    insert into worker.jobs_finished
           (id, finished_at, due_at, claimed_at, worker, token, created_at, attempt, max_attempts, run_ms, priority, crashes,
            state, queue, kind, tenant, unique_key, trace, args, last_error)
    select id, statement_timestamp(), due_at, claimed_at, owner, token, created_at, attempt - refund, max_attempts, run_ms, priority, crashes,
           outcome, queue, kind, tenant, unique_key, trace, args, coalesce(message, last_error)
      from gone
), recorded as (
    insert into worker.attempts
           (ended_at, started_at, row_key, queue, kind, tenant, attempt, token, worker, outcome, next_at,
            error_type, message, fingerprint, traceback)
    select statement_timestamp(), statement_timestamp() - make_interval(secs => run_ms / 1000.0), id::text, queue, kind,
           tenant, attempt, token, $3, outcome, next_at, error_type, message, fingerprint, traceback
      from (select id, queue, kind, tenant, attempt, token, next_at, outcome, run_ms, error_type, message, fingerprint, traceback
              from kept
            union all
            select id, queue, kind, tenant, attempt - refund, token, null, outcome, run_ms, error_type, message, fingerprint, traceback
              from gone) ended
     where run_ms is not null or outcome in ('dead', 'cancelled')
), woken as (
    select count(pg_notify('duerow', queue)) as notifications
      from (select distinct queue from kept where outcome = 'released') freed
)
select ended.id, false as busy
  from (select id from kept union all select id from gone) ended, woken
union all
select o.id, true
  from given o
 cross join lateral (
    select from worker.jobs w
     where w.id = o.id and w.token = o.token and w.owner = $3
     limit 1) ours
 where (select count(*) from kept) + (select count(*) from gone) < cardinality($1::bigint[])
   and not exists (select from kept where kept.id = o.id)
   and not exists (select from gone where gone.id = o.id);
