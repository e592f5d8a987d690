-- What did each schedule do, tick by tick, and was any tick late, left out or missed? The latest first.
--
-- A tick is enqueued once, whatever happens to the workers. Late by seconds: no worker was alive, or the
-- database was away. Nothing here of a schedule that should tick: worker schedules list tells its state.
--
-- Columns
--   schedule
--   tick_at     the time that the schedule names; when somebody ran it by hand
--   outcome     enqueued; overlapped: left out, the job of the tick before was live; missed: left out, nobody
--               was there in time (catch_up); by hand: worker schedules run-now
--   ticks       how many ticks the line stands for; of missed ones tick_at is the last, counted up to 1,000
--   late        from the tick to its decision
--   job_id, job_state   the job that it made
--   decided_by  the worker
--
-- Parameters
--   since = 24 hours   how far back to look
--   schedule = (any)   this schedule only
--   lines = 100        most lines
select t.schedule, t.tick_at::timestamptz(3), t.outcome, t.count as ticks,
       case when t.outcome <> 'by hand' then date_trunc('milliseconds', t.decided_at - t.tick_at) end as late,
       t.job_id,
       coalesce((select case when j.owner is not null then 'running' when j.due_at <= now() then 'due' else 'scheduled' end
                   from worker.jobs j where j.id = t.job_id),
                (select f.state from worker.jobs_finished f where f.id = t.job_id and f.finished_at >= t.decided_at)) as job_state,
       coalesce(w.name, 'worker ' || t.worker) as decided_by
  from worker.schedule_ticks t
  left join worker.workers w on w.id = t.worker
 where t.decided_at > now() - coalesce(nullif(current_setting('duerow.since', true), ''), '24 hours')::interval
   and t.schedule = coalesce(nullif(current_setting('duerow.schedule', true), ''), t.schedule)
 order by t.tick_at desc, t.schedule
 limit coalesce(nullif(current_setting('duerow.lines', true), ''), '100')::integer;
