-- Returns the rows of absent workers, or ends those that crashed once too often.
--
-- takes  $1 bigint[]: ids of absent workers, $2 int: crashes a row may cause before it is dead.
-- gives  key, kind, queue, outcome (crashed, dead, or cancelled), crashes.
--
-- Walks the due rows by the index, never the whole table: a claimed row is due. One whose due time
-- was put off while it ran, or for which the condition no longer holds, is not due and stays as it
-- is; once it is due again the chore `orphans` finds it. One whose worker an operator had asked to
-- cancel it is cancelled: nobody is left to hear of it.
with lost as (
    select w.ctid as place, w.tableoid as part, w.duerow_owner as owner, w.duerow_claimed_at as claimed_at,
           case when exists (select from worker.operator_actions a
                              where a.worker = w.duerow_owner and a.token = w.duerow_token and a.source = {name}
                                and a.target = {row_key_of_w} and a.handled_at is null) then 'cancelled'
                when w.duerow_crashes + 1 >= $2 then 'dead' end as ending
      from {table} w
     where {due_expression} <= {now} and {condition} and w.duerow_owner = any ($1::bigint[])
       for no key update of w skip locked
), written as (
    update {table} t
       set duerow_owner = null, duerow_claimed_at = null, duerow_crashes = t.duerow_crashes + 1,
           duerow_held_for = t.{due},
           duerow_retry_at = case when lost.ending is null then {crash_retry} else 'infinity' end,
           duerow_state = lost.ending,
           duerow_error = case when lost.ending = 'cancelled'
                               then 'an operator asked for it, and the worker that ran it is gone'
                               else 'the worker that ran it is gone' end
      from lost
     where t.tableoid = lost.part and t.ctid = lost.place and t.duerow_owner = lost.owner
    returning {row_key_of_t} as row_key, {tenant_of_t} as tenant, t.duerow_attempt as attempt, t.duerow_token as token,
              t.duerow_crashes::integer as crashes, lost.owner, lost.claimed_at,
              coalesce(lost.ending, 'crashed') as outcome
), heeded as (
    update worker.operator_actions a
       set handled_at = now()
      from written
     where written.outcome = 'cancelled' and a.worker = written.owner and a.token = written.token
       and a.source = {name} and a.target = written.row_key
), recorded as (
    insert into worker.attempts
           (started_at, source, row_key, queue, kind, tenant, attempt, token, worker, outcome, error_type, message, fingerprint)
    select claimed_at, {name}, row_key, {name}, {name}, tenant, attempt, token, owner, outcome,
           'WorkerGone', 'the worker that ran it is gone', 'WorkerGone'
      from written
), woken as (
    select count(pg_notify('duerow', {name})) as notifications from (select from written limit 1) freed
)
select row_key, {name} as kind, {name} as queue, outcome, crashes from written, woken;
