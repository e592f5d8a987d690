-- The numbers to watch: one row.
--
--   run_minutes  how long the run under way (the longest) has gone on, or the last one took
--   done         orders asked about since it began
--   errors       attempts since then that failed
--   error_rate   errors of all attempts, in percent
--   backlog      orders that should have been asked about by now
--   left_dead    orders that nobody will ask about before somebody looks at them
--
-- orders.minute: what counts as a minute, '1 minute' unless it is set.
with clock as (
    select coalesce(nullif(current_setting('orders.minute', true), ''), '1 minute')::interval as minute
), run as (
    select w.started_at, coalesce(w.stopped_at, w.gone_at, now()) as ended_at
      from worker.workers w
     where 'orders' = any (w.kinds)
     order by case when w.stopped_at is null and w.gone_at is null then w.started_at end,  -- the first
              w.started_at desc
     limit 1
), tried as (
    select count(*) filter (where a.outcome = 'done') as done,
           count(*) filter (where a.outcome in ('retry', 'dead', 'crashed')) as errors
      from worker.attempts a
     where a.source = 'orders' and a.ended_at >= (select started_at from run)
), waiting as (
    select count(*) filter (where not coalesce(dead, false)) as backlog, count(*) filter (where dead) as left_dead
      from (select o.duerow_state is not null and o.duerow_held_for = o.next_check_at as dead
              from example_orders.orders o
             where o.open and o.next_check_at <= now()) due
)
select extract(epoch from run.ended_at - run.started_at) / extract(epoch from clock.minute) as run_minutes,
       tried.done, tried.errors,
       coalesce(round(100.0 * tried.errors / nullif(tried.done + tried.errors, 0), 1), 0) as error_rate,
       waiting.backlog, waiting.left_dead
  from tried cross join waiting cross join clock left join run on true;
