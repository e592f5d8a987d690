-- Ends the session of whoever holds a chore's lock and does nothing with it: a worker that was frozen,
-- or cut off, in the middle of the chore. The others could not do it until that session ends.
--
-- takes  $1 text: the chore, $2 float8: seconds between two runs.
-- gives  pid, for each session that was ended.
-- none   the chore is not overdue, or whoever is at it is at work.
--
-- No timeout of Postgres 15 and 16 ends a session that waits for its client in the middle of the
-- extended protocol (parsed, not yet executed): it counts as active, and a cancel is ignored there.
select pg_terminate_backend(a.pid) as ended, a.pid
  from pg_locks l
  join pg_stat_activity a on a.pid = l.pid
 cross join hashtextextended('duerow chore ' || $1, 0) as k(key)
 where not exists (  -- asked before anything is looked up; its first run leaves nothing to see
        select from worker.chores c
         where c.name = $1 and c.last_run_at > now() - make_interval(secs => 2 * $2 + 5))
   and l.locktype = 'advisory' and l.granted and l.objsubid = 1
   and l.database = (select d.oid from pg_database d where d.datname = current_database())
   and l.classid::bigint = (k.key >> 32) & 4294967295 and l.objid::bigint = k.key & 4294967295
   and a.pid <> pg_backend_pid()
   and a.wait_event = 'ClientRead' and a.state_change < clock_timestamp() - interval '5 seconds';
