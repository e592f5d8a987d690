-- Alert: a run takes more than 20 minutes. A row for each such run that is under way, none if all is well.
--
-- orders.minute: what counts as a minute, '1 minute' unless it is set.
with clock as (
    select coalesce(nullif(current_setting('orders.minute', true), ''), '1 minute')::interval as minute
)
select w.name, w.host, w.pid,
       extract(epoch from now() - w.started_at) / extract(epoch from clock.minute) as minutes
  from worker.workers w, clock
 where 'orders' = any (w.kinds) and w.stopped_at is null and w.gone_at is null
   and now() - w.started_at > 20 * clock.minute;
