-- Lists the ticks of a schedule that were decided, the latest first.
--
-- takes  $1 text: the schedule, $2 int: how many.
-- gives  tick_at, outcome, count, job_id, state of the job, decided_at, worker.
select t.tick_at, t.outcome, t.count, t.job_id, job.state, t.decided_at, t.worker
  from worker.schedule_ticks t
  left join lateral (select j.state from worker.all_jobs j where j.id = t.job_id limit 1) job on true
 where t.schedule = $1::text
 order by t.tick_at desc
 limit $2::integer;
