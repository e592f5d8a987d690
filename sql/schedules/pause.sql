-- Pauses a schedule: no tick of it is enqueued any more. Jobs that it enqueued go on.
--
-- takes  $1 text: the name, $2 text: who asks, $3 text: why, or null.
-- gives  schedule, paused_at, paused_by, reason; changed: false when it was paused before.
-- none   there is no such schedule.
with paused as (
    update worker.schedules s
       set paused_at = now(), paused_by = $2::text, reason = $3::text
     where s.name = $1::text and s.paused_at is null
    returning name, paused_at, paused_by, reason
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $2::text, 'pause', 'schedules', name, $3::text from paused
)
select name as schedule, paused_at, paused_by, reason, true as changed from paused
union all
select name, paused_at, paused_by, reason, false from worker.schedules
 where name = $1 and not exists (select from paused);
