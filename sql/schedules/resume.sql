-- Lets a paused schedule tick again, from now on: what it missed is not made up for.
--
-- takes  $1 text: the name, $2 text: who asks, $3 text: why, or null.
-- gives  schedule, was_paused_at; null: it was not paused.
-- none   there is no such schedule.
with before as (
    select name, paused_at from worker.schedules where name = $1::text for update
), resumed as (
    update worker.schedules s
       set paused_at = null, paused_by = null, reason = null
      from before
     where s.name = before.name and before.paused_at is not null
    returning s.name
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $2::text, 'resume', 'schedules', name, $3::text from resumed
)
select name as schedule, paused_at as was_paused_at from before;
