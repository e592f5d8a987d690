-- Writes the transitions of an adopted table's rows, under the fence, and records every attempt.
--
-- takes  $1 bigint: the worker's id; then parallel arrays: $2 bigint[] tokens, $3 timestamptz[]
--        occurrences (the due column as claimed), $4 text[] outcomes (done, retry, snooze, released,
--        dead, cancelled), $5 timestamptz[] next due times or null, $6 float8[] seconds until the next
--        due time or null (for done, both null: never again), $7 float8[] seconds that the next run is
--        held back beyond its due time, $8 int[] attempts, $9 int[] attempts given back, $10 int[] run
--        times in ms (null: the handler never started, nothing is recorded), $11 text[] error types,
--        $12 text[] messages, $13 text[] fingerprints, $14 text[] tracebacks, $15 text[] row keys,
--        $16... the key's columns.
-- gives  the keys of the rows whose claim was still ours, and busy: true for those that are ours but
--        could not be written: locked, or changed while this statement ran. They are to be sent again.
-- missing rows: the claim was lost; nothing was written for it.
--
-- The due column is written for done alone, and only if it still is what it was at the claim: a
-- change by its owner wins. No other column of the user's is ever written. A row that was deleted in
-- flight counts as settled, unless this claim was ended before: the attempt is recorded.
-- Times are the statement's: in a handler's own session now() is when its transaction began, before
-- the handler ran.
--
-- A worker's own settles skip rows that are locked (`for no key update skip locked`): they write
-- many rows at once, and whoever waits for one lock while it holds another can be in a deadlock with
-- the table's owner. A handler's session waits. Since what was locked may have been changed first,
-- the update, which goes by ctid, may miss the row: it is busy then, and found by the next try.
with given as (
    select *
      from unnest($2::bigint[], $3::timestamptz[], $4::text[], $5::timestamptz[], $6::float8[], $7::float8[],
                  $8::integer[], $9::integer[], $10::integer[], $11::text[], $12::text[], $13::text[], $14::text[],
                  $15::text[], {key_arrays})
           with ordinality
           as o(token, occurrence, outcome, next_at, delay, put_off, attempt, refund, run_ms, error_type, message,
                fingerprint, traceback, row_key, {key_aliases}, place_in_batch)
), outcome as (
    select o.*, {occurrence} as due_then, {next} as next_due, ours.*
      from given o
     cross join lateral (  -- one probe per key, whatever the statistics say
        select w.ctid as place, w.tableoid as part, {tenant_of_w} as tenant
          from {table} w
         where {key_matches} and w.duerow_token = o.token and w.duerow_owner = $1
         limit 1
           for no key update of w{or_skip}) ours
), written as (
    update {table} t
       set duerow_owner = null,
           duerow_claimed_at = null,
           {due} = case when o.outcome = 'done' and t.{due} = o.due_then then o.next_due else t.{due} end,
           duerow_held_for = case when o.outcome = 'done'
                                  then case when o.put_off > 0 and t.{due} = o.due_then then o.next_due end
                                  when o.outcome = 'released' and o.delay is null then t.duerow_held_for
                                  else o.due_then end,
           duerow_retry_at = case when o.outcome = 'done'
                                  then case when o.put_off > 0 and t.{due} = o.due_then
                                            then o.next_due + make_interval(secs => o.put_off) end
                                  when o.outcome in ('dead', 'cancelled') then 'infinity'
                                  when o.outcome = 'released' and o.delay is null then t.duerow_retry_at
                                  else o.next_due end,
           duerow_attempt = case when o.outcome = 'done' then 0 else t.duerow_attempt - o.refund end,
           duerow_crashes = case when o.outcome = 'done' then 0 else t.duerow_crashes end,
           duerow_state = case when o.outcome in ('dead', 'cancelled') and t.{due} = o.due_then then o.outcome end,
           duerow_error = case when o.outcome <> 'done' then coalesce(o.message, t.duerow_error) end
      from outcome o
     where {at_place} and t.duerow_token = o.token and t.duerow_owner = $1
    returning o.*, {then_due} as then_due
), missed as (
    select o.*,
           exists (select from {table} w
                    where {key_matches} and w.duerow_token = o.token and w.duerow_owner = $1) as busy,
           not exists (select from {table} w where {key_matches})
           and not exists (select from worker.attempts a
                            where a.source = {name} and a.row_key = o.row_key and a.token = o.token) as deleted
      from given o
     where (select count(*) from written) < cardinality($2)
       and o.place_in_batch not in (select w.place_in_batch from written w)
), recorded as (
    insert into worker.attempts
           (ended_at, started_at, source, row_key, queue, kind, tenant, attempt, token, worker, outcome, next_at,
            error_type, message, fingerprint, traceback)
    select statement_timestamp(), statement_timestamp() - make_interval(secs => run_ms / 1000.0), {name}, row_key,
           {name}, {name}, tenant, attempt, token, $1, outcome, then_due, error_type, message, fingerprint, traceback
      from (select row_key, tenant, attempt, token, outcome, then_due, run_ms, error_type, message, fingerprint, traceback
              from written
            union all
            select row_key, null, attempt, token, outcome, null, run_ms, error_type, message, fingerprint, traceback
              from missed where deleted) ended
     where run_ms is not null
), woken as (
    select count(pg_notify('duerow', {name})) as notifications
      from (select from written where outcome = 'released' limit 1) freed
)
select {key_aliases}, busy
  from (select {key_aliases}, false as busy from written
        union all
        select {key_aliases}, busy from missed where busy or deleted) ended, woken;
