-- Deletes what nobody can ask for any more: unique keys whose period is over, workers that went
-- long ago, gates that hold nothing, old roll-ups, ticks of schedules and operator actions.
--
-- takes  $1 float8: seconds that attempts are kept (workers, ticks and actions are kept as long).
with keys as (
    delete from worker.unique_keys where expires_at < now()
), gone as (
    delete from worker.workers w
     where coalesce(stopped_at, gone_at) < now() - make_interval(secs => $1)
       and not exists (select from worker.jobs j where j.owner = w.id)
), gates as (
    delete from worker.gates
     where id in (select id from worker.gates
                   where not governs and in_use = 0 and opened_at is null and coalesce(full_at, '-infinity') < now()
                     for update skip locked)
), ticks as (
    delete from worker.schedule_ticks where decided_at < now() - make_interval(secs => $1)
), rollups as (
    delete from worker.stats where minute < now() - interval '90 days'
)
delete from worker.operator_actions where at < now() - make_interval(secs => $1);
