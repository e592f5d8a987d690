-- Returns the rows of absent workers, or ends those that crashed once too often.
--
-- takes  $1 bigint[]: ids of absent workers, $2 int: crashes a row may cause before it is dead.
-- gives  id, kind, queue, outcome (crashed, dead, or cancelled), crashes.
--
-- Reads the live table once; run only when absent.sql lists somebody. The first crash costs no
-- wait, the second three seconds, to keep a row that kills its worker from killing the fleet. A row
-- whose worker an operator had asked to cancel it is cancelled: nobody is left to hear of it.
with lost as (
    select j.id, j.owner, j.claimed_at,
           case when exists (select from worker.operator_actions a
                              where a.worker = j.owner and a.token = j.token and a.source = 'jobs'
                                and a.target = j.id::text and a.handled_at is null) then 'cancelled'
                when j.crashes + 1 >= $2 or j.attempt >= j.max_attempts then 'dead' end as ending
      from worker.jobs j
     where j.owner = any ($1::bigint[])
       for no key update skip locked
), kept as (
    update worker.jobs j
       set owner = null, claimed_at = null, crashes = j.crashes + 1,
           due_at = now() + make_interval(secs => least(power(4, least(j.crashes, 6)) - 1, 3600)),
           last_error = 'the worker that ran it is gone'
      from lost
     where j.id = lost.id and j.owner = lost.owner and lost.ending is null
    returning j.*, lost.owner as was_owner, lost.claimed_at as was_claimed_at
), gone as (
    delete from worker.jobs j
     using lost
     where j.id = lost.id and j.owner = lost.owner and lost.ending is not null
    returning j.*, lost.owner as was_owner, lost.claimed_at as was_claimed_at, lost.ending
), finished as (
    insert into worker.jobs_finished
           (id, due_at, claimed_at, worker, token, created_at, attempt, max_attempts, priority, crashes,
            state, queue, kind, tenant, unique_key, trace, args, last_error)
    select id, due_at, claimed_at, owner, token, created_at, attempt, max_attempts, priority, crashes + 1,
           ending, queue, kind, tenant, unique_key, trace, args,
           case ending when 'dead' then 'the worker that ran it is gone, once too often'
                       else 'an operator asked for it, and the worker that ran it is gone' end
      from gone
), heeded as (
    update worker.operator_actions a
       set handled_at = now()
      from gone
     where gone.ending = 'cancelled' and a.worker = gone.was_owner and a.token = gone.token
       and a.source = 'jobs' and a.target = gone.id::text
), recorded as (
    insert into worker.attempts
           (started_at, row_key, queue, kind, tenant, attempt, token, worker, outcome, next_at, error_type, message, fingerprint)
    select was_claimed_at, id::text, queue, kind, tenant, attempt, token, was_owner, outcome, next_at,
           'WorkerGone', 'the worker that ran it is gone', 'WorkerGone'
      from (select id, queue, kind, tenant, attempt, token, was_owner, was_claimed_at, 'crashed' as outcome, due_at as next_at from kept
            union all
            select id, queue, kind, tenant, attempt, token, was_owner, was_claimed_at, ending, null from gone) ended
), woken as (
    select count(pg_notify('duerow', queue)) as notifications from (select distinct queue from kept) freed
)
select id, kind, queue, outcome, crashes
  from (select id, kind, queue, 'crashed' as outcome, crashes::integer from kept
        union all
        select id, kind, queue, ending, crashes + 1 from gone) swept, woken;
