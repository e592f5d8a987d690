-- Removes an operator's schedule, or one of a worker's code that no live worker names. Its jobs, and the
-- record of its ticks, stay.
--
-- takes  $1 text: the name, $2 text: who asks, $3 text: why, or null.
-- gives  name, outcome: removed, or code: a live worker's code names it, and would bring it back.
-- none   there is no such schedule.
with found as materialized (
    select s.name,
           s.origin = 'code' and exists (
                select from worker.workers w
                 where w.gone_at is null and w.stopped_at is null and w.heartbeat_at + w.lease > now()
                   and s.name = any (w.schedules)) as held
      from worker.schedules s
     where s.name = $1::text
       for update
), gone as (
    delete from worker.schedules s using found f where s.name = f.name and not f.held returning s.name
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $2::text, 'remove', 'schedules', name, $3::text from gone
)
select name, case when held then 'code' else 'removed' end as outcome from found;
