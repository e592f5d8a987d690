-- Enqueues the job of a schedule now, whatever its ticks, its pause and its overlap policy say. Its next tick stays.
--
-- takes  $1 text: the name, $2 text: who asks, $3 text: why, or null.
-- gives  schedule, job_id.
-- none   there is no such schedule.
with found as materialized (
    select s.*, nextval('worker.jobs_id_seq') as job_id from worker.schedules s where s.name = $1::text for no key update
), made as (
    insert into worker.jobs (id, kind, args, queue, priority, tenant, max_attempts)
    select job_id, kind,
           case when tick_as is null then args
                else args || jsonb_build_object(
                    tick_as, to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')) end,
           queue, priority, tenant, max_attempts
      from found
    returning id, queue
), written as (
    insert into worker.schedule_ticks (schedule, tick_at, outcome, job_id)
    select name, clock_timestamp(), 'by hand', job_id from found
), moved as (
    update worker.schedules s set last_job_id = f.job_id from found f where s.name = f.name
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $2::text, 'run now', 'schedules', name, $3::text from found
), told as (
    select count(pg_notify('duerow', queue)) as notifications from made
)
select f.name as schedule, f.job_id from found f cross join told;
