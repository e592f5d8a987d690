-- Runs dead jobs of one kind again, by the rule of its handler: some time after they died, and only so
-- many times. As an operator's retry: the id stays, attempts and crashes begin anew.
--
-- takes  $1 text: the kind, $2 float8: seconds since a job died, $3 int: how many times one may be run
--        again, $4 int: most jobs at once.
-- gives  redriven: how many.
--
-- Dead jobs are found by jobs_finished_dead; how often each died, by its attempts. One whose unique key
-- another live job has stays dead for now.
with ripe as materialized (
    select f.id, f.finished_at, deaths.count
      from worker.jobs_finished f
     cross join lateral (
        select count(*) as count
          from worker.attempts a
         where a.source = 'jobs' and a.row_key = f.id::text and a.outcome = 'dead'
           and a.ended_at >= f.created_at) deaths
     where f.state = 'dead' and f.kind = $1::text
       and f.finished_at <= now() - make_interval(secs => $2::float8)
       and deaths.count between 1 and $3::integer
       and not exists (select from worker.jobs j where j.kind = f.kind and j.unique_key = f.unique_key)
     order by f.finished_at
     limit $4::integer
), wanted as materialized (
    select f.*, r.count
      from ripe r
      join worker.jobs_finished f on f.id = r.id and f.finished_at = r.finished_at and f.state = 'dead'
       for update of f skip locked
), made as (
    insert into worker.jobs (id, due_at, token, created_at, max_attempts, priority, queue, kind, tenant, unique_key,
                             trace, args, last_error)
    select id, now(), token, created_at, max_attempts, priority, queue, kind, tenant, unique_key, trace, args, last_error
      from wanted
        on conflict do nothing
    returning id, queue
), moved as materialized (
    select w.id, w.finished_at, w.count from made m join wanted w on w.id = m.id
), gone as (
    delete from worker.jobs_finished f
     using moved m
     where f.id = m.id and f.finished_at = m.finished_at
), recorded as (
    insert into worker.operator_actions (actor, action, target, reason)
    select 'redrive rule', 'redrive', id::text, format('time %s of %s', count, $3::integer) from moved
), woken as (
    select count(pg_notify('duerow', queue)) as notifications from (select distinct queue from made) queues
)
select count(*) as redriven from made, woken;
