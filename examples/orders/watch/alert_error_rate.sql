-- Alert: more than 10 % of the attempts of the last 15 minutes have failed. One row, or none if all is well.
--
-- Of fewer than 50 attempts, one call to the carrier, nothing is concluded.
--
-- orders.minute: what counts as a minute, '1 minute' unless it is set.
with clock as (
    select coalesce(nullif(current_setting('orders.minute', true), ''), '1 minute')::interval as minute
), tried as (
    select count(*) as attempts, count(*) filter (where a.outcome <> 'done') as errors,
           (array_agg(a.message order by a.ended_at desc) filter (where a.outcome <> 'done'))[1] as latest
      from worker.attempts a, clock
     where a.source = 'orders' and a.ended_at > now() - 15 * clock.minute
       and a.outcome in ('done', 'retry', 'dead', 'crashed')
)
select attempts, errors, round(100.0 * errors / attempts, 1) as error_rate, latest
  from tried
 where attempts >= 50 and errors > 0.1 * attempts;
