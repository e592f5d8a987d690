-- Cancels jobs. One that waits is finished at once; the worker that runs one is asked to stop it, and hears of
-- it at once where it listens, at its next heartbeat elsewhere.
--
-- takes  $1 bigint[] ids, $2 text: who asks, $3 text: why, or null.
-- gives  for each id what became of it, and detail:
--        cancelled  it waited, and is finished now
--        asked      it runs; its worker was asked, by this call or before. detail is the worker's id
--        busy       it is being claimed or settled in this moment: ask again
--        finished   it was finished already; detail is its state
--        missing    no job has that id
with waiting as (
    select id from worker.jobs
     where id = any ($1::bigint[]) and owner is null
       for update skip locked
), gone as (
    delete from worker.jobs j
     using waiting w
     where j.id = w.id and j.owner is null
    returning j.*
), finished as (
    insert into worker.jobs_finished
           (id, due_at, claimed_at, token, created_at, attempt, max_attempts, priority, crashes, state, queue, kind,
            tenant, unique_key, trace, args, last_error)
    select id, due_at, claimed_at, token, created_at, attempt, max_attempts, priority, crashes, 'cancelled', queue,
           kind, tenant, unique_key, trace, args, concat_ws(': ', 'cancelled by ' || $2::text, $3::text)
      from gone
), running as (
    select id, owner, token from worker.jobs where id = any ($1::bigint[]) and owner is not null
), recorded as (
    insert into worker.operator_actions (actor, action, target, reason, worker, token)
    select $2::text, 'cancel', id::text, $3::text, null, null from gone
    union all
    select $2::text, 'cancel', id::text, $3::text, owner, token
      from running r
     where not exists (
        select from worker.operator_actions a
         where a.worker = r.owner and a.token = r.token and a.source = 'jobs' and a.target = r.id::text
           and a.handled_at is null)
), told as (
    select count(pg_notify('duerow_worker', owner::text)) as notifications
      from (select distinct owner from running) owners
)
select asked.id,
       case when gone.id is not null then 'cancelled'
            when running.id is not null then 'asked'
            when live.id is not null then 'busy'
            when done.id is not null then 'finished'
            else 'missing' end as outcome,
       coalesce(running.owner::text, done.state) as detail
  from unnest($1::bigint[]) as asked(id)
  left join gone on gone.id = asked.id
  left join running on running.id = asked.id
  left join worker.jobs live on live.id = asked.id
  left join worker.jobs_finished done on done.id = asked.id
 cross join told
 order by asked.id;
