-- Ends the sessions in which handlers of workers that are gone keep jobs locked: a worker that was
-- frozen, or cut off, between its handler's settle and the commit. A sweep skips those rows, and
-- nothing else would end the session before the worker's host does.
--
-- takes  $1 bigint[]: ids of absent workers.
-- gives  pid, for each session that was ended. The next sweep finds their rows unlocked.
--
-- xmax is the transaction that holds the row's lock, or has deleted it. Only one that began before
-- the worker was declared dead, and waits for its client.
select pg_terminate_backend(a.pid) as ended, a.pid
  from worker.jobs j
  join worker.workers w on w.id = j.owner and w.gone_at is not null
  join pg_stat_activity a on a.backend_xid = j.xmax
 where j.owner = any ($1::bigint[])
   and exists (select from pg_stat_activity s  -- asked once, and first: mostly there is none
                where s.application_name = 'duerow handler' and s.backend_xid is not null
                  and s.wait_event = 'ClientRead' and s.state_change < clock_timestamp() - interval '5 seconds')
   and a.application_name = 'duerow handler' and a.xact_start < w.gone_at
   and a.wait_event = 'ClientRead' and a.state_change < clock_timestamp() - interval '5 seconds';
