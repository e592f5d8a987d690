-- Alert: the backlog is not smaller than 15 minutes ago. One row, or none if all is well.
--
-- The backlog is what should have been asked about and was not; dead orders apart. Nobody has to have noted
-- what it was 15 minutes ago: it is what was due then and still waits, and what was asked about since for a
-- time before (checked_for, which the handler writes with the answer). It fires as well when nothing runs.
--
-- orders.minute: what counts as a minute, '1 minute' unless it is set.
with clock as (
    select now() - 15 * coalesce(nullif(current_setting('orders.minute', true), ''), '1 minute')::interval as before
), known as (
    select o.next_check_at as due, o.checked_at, o.checked_for,
           o.duerow_state is not null and o.duerow_held_for = o.next_check_at as dead
      from example_orders.orders o
     where o.open
), counted as (
    select count(*) filter (where due <= now() and not coalesce(dead, false)) as backlog,
           count(*) filter (where due <= before and not coalesce(dead, false)) as waiting_since,
           count(*) filter (where checked_at > before and checked_for <= before
                              and (due is distinct from checked_for or dead)) as ended_since
      from known, clock
)
select backlog, waiting_since + ended_since as backlog_before
  from counted
 where waiting_since > 0 and backlog >= waiting_since + ended_since;
