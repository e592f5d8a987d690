-- Returns the rows of absent workers, or ends those that crashed once too often.
--
-- takes  $1 bigint[]: ids of absent workers, $2 int: crashes a row may cause before it is dead.
-- gives  id, kind, queue, outcome (crashed or dead), crashes.
--
-- Reads the live table once; run only when absent.sql lists somebody. The first crash costs no
-- wait, the second three seconds, to keep a row that kills its worker from killing the fleet.
with lost as (
    select j.id, j.owner, j.claimed_at, coalesce(j.crashes + 1 >= $2 or j.attempt >= j.max_attempts, false) as final
      from worker.jobs j
     where j.owner = any ($1::bigint[])
       for no key update skip locked
), kept as (
    update worker.jobs j
       set owner = null, claimed_at = null, crashes = j.crashes + 1,
           due_at = now() + make_interval(secs => power(4, j.crashes) - 1),
           last_error = 'the worker that ran it is gone'
      from lost
     where j.id = lost.id and j.owner = lost.owner and not lost.final
    returning j.*, lost.owner as was_owner, lost.claimed_at as was_claimed_at
), gone as (
    delete from worker.jobs j
     using lost
     where j.id = lost.id and j.owner = lost.owner and lost.final
    returning j.*, lost.owner as was_owner, lost.claimed_at as was_claimed_at
), finished as (
    insert into worker.jobs_finished
           (id, due_at, claimed_at, worker, token, created_at, attempt, max_attempts, priority, crashes,
            state, queue, kind, tenant, unique_key, trace, args, last_error)
    select id, due_at, claimed_at, owner, token, created_at, attempt, max_attempts, priority, crashes + 1,
           'dead', queue, kind, tenant, unique_key, trace, args, 'the worker that ran it is gone, once too often'
      from gone
), recorded as (
    insert into worker.attempts
           (started_at, row_key, queue, kind, tenant, attempt, token, worker, outcome, next_at, error_type, message, fingerprint)
    select was_claimed_at, id::text, queue, kind, tenant, attempt, token, was_owner, outcome, next_at,
           'WorkerGone', 'the worker that ran it is gone', 'WorkerGone'
      from (select id, queue, kind, tenant, attempt, token, was_owner, was_claimed_at, 'crashed' as outcome, due_at as next_at from kept
            union all
            select id, queue, kind, tenant, attempt, token, was_owner, was_claimed_at, 'dead', null from gone) ended
), woken as (
    select count(pg_notify('duerow', queue)) as notifications from (select distinct queue from kept) freed
)
select id, kind, queue, outcome, crashes
  from (select id, kind, queue, 'crashed' as outcome, crashes::integer from kept
        union all
        select id, kind, queue, 'dead', crashes + 1 from gone) swept, woken;
