-- Lists workers, the latest start first.
--
-- takes  $1 boolean: also those that have ended.
-- gives  id, name and what they report; state: running, draining, silent (its lease is over), stopped, or gone
--        (declared dead); beat: seconds since the last heartbeat.
select id, name, case when gone_at is not null then 'gone'
                      when stopped_at is not null then 'stopped'
                      when heartbeat_at + lease < now() then 'silent'
                      when draining_at is not null then 'draining'
                      else 'running' end as state,
       host, pid, version, queues, kinds, slots, running, settled, lost,
       extract(epoch from now() - heartbeat_at)::float8 as beat, started_at, heartbeat_at, stopped_at, gone_at
  from worker.workers
 where $1::boolean or (gone_at is null and stopped_at is null)
 order by id desc;
