-- Notes which schedules of workers' code no live worker names any more, and retires those that have been so for long.
--
-- takes  $1 float8: seconds after which one is retired.
-- gives  name of each that was retired just now.
--
-- They tick no more as soon as nobody names them (look.sql). Within the time given they are taken up where they were,
-- since a deploy may stop the old workers before it starts the new ones; a retired one that comes back begins anew.
with unheld as materialized (
    select s.name
      from worker.schedules s
     where s.origin = 'code' and s.retired_at is null
       and not exists (
            select from worker.workers w
             where w.gone_at is null and w.stopped_at is null and w.heartbeat_at + w.lease > now()
               and s.name = any (w.schedules))
       and (s.unheld_since is null or s.unheld_since < now() - make_interval(secs => $1::float8))
       for no key update of s skip locked
), noted as (
    update worker.schedules s
       set unheld_since = coalesce(s.unheld_since, now()),
           retired_at = case when s.unheld_since < now() - make_interval(secs => $1::float8) then now() end
      from unheld u
     where s.name = u.name
    returning s.name, s.retired_at
)
select name from noted where retired_at is not null order by name;
