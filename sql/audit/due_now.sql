-- What is waiting now, and does anybody serve it? One line per queue and kind, the longest wait first.
--
-- A line with workers = 0, or with a time in paused_since, is work that nobody will do. Much that is due
-- and slots that are full is a fleet that is too small or an outside system that is slow: look at
-- throughput_by_minute. Much that is retrying: look at errors_top.
--
-- An adopted table is one line, its name is queue and kind; rows that have no due time, or for which its
-- condition does not hold, are not counted. One that could not be read has no numbers: `worker tables
-- check` says why.
--
-- Columns
--   queue, kind
--   due           rows that could run now and wait for a free slot
--   longest_wait  how long the oldest of them has been due
--   running       rows in a worker's hands, with the few that it claimed ahead
--   retrying      rows that failed before and are due later
--   scheduled     rows that never ran and are due later
--   workers       live workers that serve this queue and kind
--   paused_since  when the queue was paused
--
-- Parameters
--   queue = (any)   this queue only
--
-- Reads every live row: half a second for a million jobs, some seconds for a million rows of adopted tables.
select live.queue, live.kind, live.due, date_trunc('milliseconds', now() - live.oldest) as longest_wait,
       live.running, live.retrying, live.scheduled,
       (select count(*) from worker.workers w
         where w.gone_at is null and w.stopped_at is null and w.draining_at is null
           and w.heartbeat_at + w.lease > now()
           and live.queue = any (w.queues) and live.kind = any (w.kinds)) as workers,
       (select q.paused_at::timestamptz(3) from worker.queues q where q.name = live.queue) as paused_since
  from (select queue, kind,
               count(*) filter (where owner is null and due_at <= now()) as due,
               min(due_at) filter (where owner is null and due_at <= now()) as oldest,
               count(owner) as running,
               count(*) filter (where owner is null and due_at > now() and attempt > 0) as retrying,
               count(*) filter (where owner is null and due_at > now() and attempt = 0) as scheduled
          from worker.jobs
         where queue = coalesce(nullif(current_setting('duerow.queue', true), ''), queue)
         group by queue, kind
         union all
        select r.source, r.source, counted.due, counted.oldest, counted.running, counted.retrying, counted.scheduled
          from (select source,
                       count(*) filter (where state = 'due') as due,
                       min(due_at) filter (where state = 'due') as oldest,
                       count(*) filter (where state = 'running') as running,
                       count(*) filter (where state = 'retrying') as retrying,
                       count(*) filter (where state = 'scheduled') as scheduled,
                       count(*) filter (where state = 'unreadable') as unreadable
                  from worker.adopted_rows('{due,running,retrying,scheduled}')
                 where source = coalesce(nullif(current_setting('duerow.queue', true), ''), source)
                 group by source) r
          left join lateral (select r.*) counted on r.unreadable = 0) live
 order by live.oldest, live.queue, live.kind;
