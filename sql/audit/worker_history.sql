-- Which workers came and went, and how did each end? One line per process, the latest start first.
--
-- gone means that its heartbeat stopped: killed, out of memory, frozen, or cut off from the database. Its
-- rows ran again elsewhere. A worker that was frozen comes back as a new line.
--
-- Columns
--   worker, host, pid, version
--   state        running; draining (asked to stop); stopped; gone (declared dead); silent (its lease is
--                over, and nobody has declared it dead: then no other worker is alive)
--   started_at
--   ended_at     when it stopped or was declared dead
--   lived        from start to end
--   last_beat    age of its last heartbeat: now, or when it was declared dead
--   slots        rows that it runs at once
--   settled      rows that it had written at its last heartbeat
--   left_behind  rows that it held when it died
--   refused      results that it brought too late
--
-- Parameters
--   since = 24 hours   workers that lived in this time
--   lines = 100        most lines
select w.name as worker, w.host, w.pid, w.version,
       case when w.gone_at is not null then 'gone'
            when w.stopped_at is not null then 'stopped'
            when w.heartbeat_at + w.lease < now() then 'silent'
            when w.draining_at is not null then 'draining'
            else 'running' end as state,
       w.started_at::timestamptz(3), coalesce(w.gone_at, w.stopped_at)::timestamptz(3) as ended_at,
       date_trunc('milliseconds', coalesce(w.gone_at, w.stopped_at, now()) - w.started_at) as lived,
       date_trunc('milliseconds', greatest(coalesce(w.gone_at, w.stopped_at, now()) - w.heartbeat_at, '0')) as last_beat,
       w.slots, w.settled,
       coalesce(behind.rows, 0) as left_behind, w.lost as refused
  from worker.workers w
  left join (
        select worker, count(*) as rows from worker.attempts
         where ended_at > now() - coalesce(nullif(current_setting('duerow.since', true), ''), '24 hours')::interval
           and error_type = 'WorkerGone'
         group by worker) behind on behind.worker = w.id
 where coalesce(w.gone_at, w.stopped_at, now()) > now() - coalesce(nullif(current_setting('duerow.since', true), ''), '24 hours')::interval
 order by w.started_at desc, w.id desc
 limit coalesce(nullif(current_setting('duerow.lines', true), ''), '100')::integer;
