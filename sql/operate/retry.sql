-- Runs jobs again. A finished one moves back into worker.jobs under its id, due now: its idempotency key stays,
-- its token goes on growing, its attempts and crashes begin anew. One that waits for later becomes due now and
-- keeps its attempts.
--
-- takes  $1 bigint[] ids, $2 text: who asks, $3 text: why, or null.
-- gives  for each id what became of it and, where that matters, detail:
--        retried   it was finished; detail is its former state
--        due       it waited for a later time, or was due already
--        running   it runs just now; nothing was done
--        blocked   another live job has its unique key; detail is that job's id. It stays finished
--        missing   no job has that id
--
-- Inserted first and deleted after: what the unique key keeps out must not be deleted.
with wanted as (
    select f.* from worker.jobs_finished f
     where f.id = any ($1::bigint[])
     order by f.id
       for update
), made as (
    insert into worker.jobs (id, due_at, token, created_at, max_attempts, priority, queue, kind, tenant, unique_key,
                             trace, args, last_error)
    select id, now(), token, created_at, max_attempts, priority, queue, kind, tenant, unique_key, trace, args, last_error
      from wanted
        on conflict do nothing
    returning id, queue
), gone as (
    delete from worker.jobs_finished f
     using made m
     where f.id = m.id
    returning f.*
), remembered as (
    -- That a job was done is told by its finished row alone; the other ends have an attempt of their own.
    insert into worker.attempts (ended_at, started_at, row_key, queue, kind, tenant, attempt, token, worker, outcome)
    select finished_at, finished_at - make_interval(secs => run_ms / 1000.0), id::text, queue, kind, tenant, attempt,
           token, worker, state
      from gone
     where state = 'done'
), hurried as (
    update worker.jobs j
       set due_at = now()
     where j.id = any ($1::bigint[]) and j.owner is null and j.due_at > now()
    returning j.id, j.queue
), moved as (
    select id, queue from made union all select id, queue from hurried
), recorded as (
    insert into worker.operator_actions (actor, action, target, reason)
    select $2::text, 'retry', id::text, $3::text from moved
), woken as (
    select count(pg_notify('duerow', queue)) as notifications from (select distinct queue from moved) queues
)
select asked.id,
       case when made.id is not null then 'retried'
            when wanted.id is not null then 'blocked'
            when live.owner is not null then 'running'
            when live.id is not null then 'due'
            else 'missing' end as outcome,
       case when made.id is not null then wanted.state
            when wanted.id is not null then
                 (select other.id::text from worker.jobs other
                   where other.kind = wanted.kind and other.unique_key = wanted.unique_key) end as detail
  from unnest($1::bigint[]) as asked(id)
  left join wanted on wanted.id = asked.id
  left join made on made.id = asked.id
  left join worker.jobs live on live.id = asked.id
 cross join woken
 order by asked.id;
