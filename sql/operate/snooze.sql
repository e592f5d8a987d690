-- Puts jobs that wait off until another time, later or sooner. It costs no attempt.
--
-- takes  $1 bigint[] ids, $2 text: who asks, $3 text: why, or null; $4 timestamptz: until when, or null and
--        $5 float8: seconds from now.
-- gives  for each id what became of it, and detail:
--        snoozed   it waits; detail is until when
--        running   it runs, or was just claimed; nothing was done
--        finished  detail is its state
--        missing   no job has that id
with moved as (
    update worker.jobs j
       set due_at = coalesce($4::timestamptz, now() + make_interval(secs => $5::float8))
     where j.id = any ($1::bigint[]) and j.owner is null
    returning j.id, j.queue, j.due_at
), recorded as (
    insert into worker.operator_actions (actor, action, target, reason)
    select $2::text, 'snooze', id::text, concat_ws(': ', 'until ' || due_at, $3::text) from moved
), woken as (
    select count(pg_notify('duerow', queue)) as notifications
      from (select distinct queue from moved where due_at <= now()) queues
)
select asked.id,
       case when moved.id is not null then 'snoozed'
            when live.id is not null then 'running'
            when done.id is not null then 'finished'
            else 'missing' end as outcome,
       coalesce(moved.due_at::text, done.state) as detail
  from unnest($1::bigint[]) as asked(id)
  left join moved on moved.id = asked.id
  left join worker.jobs live on live.id = asked.id
  left join worker.jobs_finished done on done.id = asked.id
 cross join woken
 order by asked.id;
