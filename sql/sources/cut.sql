-- Ends the sessions in which handlers of workers that are gone keep rows locked: as chores/cut.sql
-- does for jobs. A handler that has changed its own row is found here, too.
--
-- takes  $1 bigint[]: ids of absent workers.
-- gives  pid, for each session that was ended. The next sweep finds their rows unlocked.
select pg_terminate_backend(a.pid) as ended, a.pid
  from {table} w
  join worker.workers gone on gone.id = w.duerow_owner and gone.gone_at is not null
  join pg_stat_activity a on a.backend_xid = w.xmax
 where {due_expression} <= {now} and {condition} and w.duerow_owner = any ($1::bigint[])
   and exists (select from pg_stat_activity s  -- asked once, and first: mostly there is none
                where s.application_name = 'duerow handler' and s.backend_xid is not null
                  and s.wait_event = 'ClientRead' and s.state_change < clock_timestamp() - interval '5 seconds')
   and a.application_name = 'duerow handler' and a.xact_start < gone.gone_at
   and a.wait_event = 'ClientRead' and a.state_change < clock_timestamp() - interval '5 seconds';
