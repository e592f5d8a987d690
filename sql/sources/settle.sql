-- Writes the transitions of an adopted table's rows, under the fence, and records every attempt.
--
-- takes  $1 bigint: the worker's id; then parallel arrays: $2 bigint[] tokens, $3 timestamptz[]
--        occurrences (the due column as claimed), $4 text[] outcomes (done, retry, snooze, released,
--        dead, cancelled), $5 timestamptz[] next due times or null, $6 float8[] seconds until the next
--        due time or null (for done, both null: never again), $7 int[] attempts given back, $8 int[] run
--        times in ms (null: the handler never started, nothing is recorded), $9 text[] error types,
--        $10 text[] messages, $11 text[] fingerprints, $12 text[] tracebacks, $13... the key's columns.
-- gives  the keys of the rows whose claim was still ours.
-- missing rows: the claim was lost, or the row was deleted; nothing was written for it.
--
-- The due column is written for done alone, and only if it still is what it was at the claim: a
-- change by its owner wins. No other column of the user's is ever written. Times are the statement's:
-- in a handler's own session now() is when its transaction began, before the handler ran.
with outcome as (
    select o.*, ours.*
      from unnest($2::bigint[], $3::timestamptz[], $4::text[], $5::timestamptz[], $6::float8[], $7::integer[],
                  $8::integer[], $9::text[], $10::text[], $11::text[], $12::text[], {key_arrays})
           as o(token, occurrence, outcome, next_at, delay, refund, run_ms, error_type, message, fingerprint, traceback,
                {key_aliases})
     cross join lateral (  -- one probe per key, whatever the statistics say
        select w.ctid as place, w.tableoid as part, w.duerow_attempt as was_attempt, {tenant_of_w} as tenant
          from {table} w
         where {key_matches} and w.duerow_token = o.token and w.duerow_owner = $1
         limit 1) ours
), written as (
    update {table} t
       set duerow_owner = null,
           duerow_claimed_at = null,
           {due} = case when o.outcome = 'done' and t.{due} is not distinct from {occurrence}
                        then {next} else t.{due} end,
           duerow_held_for = case when o.outcome = 'done' then null
                                  when o.outcome = 'released' and o.delay is null then t.duerow_held_for
                                  else {occurrence} end,
           duerow_retry_at = case when o.outcome = 'done' then null
                                  when o.outcome in ('dead', 'cancelled') then 'infinity'
                                  when o.outcome = 'released' and o.delay is null then t.duerow_retry_at
                                  else {next} end,
           duerow_attempt = case when o.outcome = 'done' then 0 else t.duerow_attempt - o.refund end,
           duerow_crashes = case when o.outcome = 'done' then 0 else t.duerow_crashes end,
           duerow_state = case when o.outcome in ('dead', 'cancelled') then o.outcome end,
           duerow_error = case when o.outcome <> 'done' then coalesce(o.message, t.duerow_error) end
      from outcome o
     where t.tableoid = o.part and t.ctid = o.place and t.duerow_token = o.token and t.duerow_owner = $1
    returning o.*, {then_due} as then_due
), recorded as (
    insert into worker.attempts
           (ended_at, started_at, source, row_key, queue, kind, tenant, attempt, token, worker, outcome, next_at,
            error_type, message, fingerprint, traceback)
    select statement_timestamp(), statement_timestamp() - make_interval(secs => run_ms / 1000.0), {name}, {row_key}, {name}, {name}, tenant, was_attempt, token, $1,
           outcome, then_due, error_type, message, fingerprint, traceback
      from written
     where run_ms is not null
)
select {key_aliases} from written;
