-- Returns every row that a worker still holds: the last act of a process whose grace has passed
-- while its event loop is blocked. It has no time: a row that somebody has locked is left for the next
-- time, or to the sweep.
--
-- takes  $1 bigint: the worker's id.
-- gives  released: how many rows went back, each without the attempt it had begun; left_over: how many did not.
with all_held as (
    select count(*) as count
      from {table} w
     where {due_expression} <= {now} and {condition} and w.duerow_owner = $1
), held as (
    select w.ctid as place, w.tableoid as part
      from {table} w
     where {due_expression} <= {now} and {condition} and w.duerow_owner = $1
       for no key update of w skip locked
), freed as (
    update {table} t
       set duerow_owner = null, duerow_claimed_at = null, duerow_attempt = t.duerow_attempt - 1
      from held
     where t.tableoid = held.part and t.ctid = held.place and t.duerow_owner = $1
    returning {row_key_of_t} as row_key, {tenant_of_t} as tenant, t.duerow_attempt + 1 as attempt, t.duerow_token as token
), recorded as (
    insert into worker.attempts (source, row_key, queue, kind, tenant, attempt, token, worker, outcome, message)
    select {name}, row_key, {name}, {name}, tenant, attempt, token, $1, 'released', 'grace passed while the handler ran'
      from freed
), woken as (
    select count(pg_notify('duerow', {name})) as notifications from (select from freed limit 1) first
)
select (select count(*) from freed) as released,
       (select count from all_held) - (select count(*) from freed) as left_over
  from woken;
