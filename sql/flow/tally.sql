-- Counts ended runs for circuit breakers, opens those that have seen enough, and closes those whose trial went well.
--
-- takes  $1 bigint[] gates; of each: $2 int[] runs, $3 int[] failed, $4 int[]: failures since the last success among
--        them; $5 text[]: what became of the row that tried it: success, failure, none, or null; $6 bigint: the worker.
-- gives  queue, kind, tenant; state: opened or closed, for those that changed; open_for: seconds.
--
-- While a breaker is open only the trial counts: what ended otherwise began before.
with locked as (
    select g.*,
           case when g.set_by is null then each.trip_after else g.trip_after end as after,
           case when g.set_by is null then each.trip_share else g.trip_share end as share,
           coalesce(case when g.set_by is null then each.trip_window else g.trip_window end, '1 minute') as long,
           coalesce(case when g.set_by is null then each.trip_runs else g.trip_runs end, 10) as enough,
           coalesce(case when g.set_by is null then each.trip_pause else g.trip_pause end, '1 minute') as pause
      from worker.gates g
      left join worker.gates each on each.tenant = '*' and g.tenant <> '*'
           and each.queue is not distinct from g.queue and each.kind is not distinct from g.kind
     where g.id = any ($1::bigint[])
     order by g.id
       for no key update of g
), counted as (
    select l.*, new.trial, new.runs, new.failed,
           case when new.runs > new.tail then new.tail else l.failures + new.tail end as in_row,
           coalesce(l.window_began > now() - l.long, false) as same
      from locked l
      join unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::text[]) as new(gate, runs, failed, tail, trial)
        on new.gate = l.id
), judged as (
    select c.*,
           case when c.opened_at is null then
                     case when c.in_row >= c.after
                            or (case when c.same then c.window_runs else 0 end + c.runs >= c.enough
                                and case when c.same then c.window_failed else 0 end + c.failed
                                    >= c.share * (case when c.same then c.window_runs else 0 end + c.runs))
                          then 'opened' end
                when c.trial = 'success' then 'closed'
                when c.trial = 'failure' then 'opened' end as state
      from counted c
), written as (
    update worker.gates g
       set failures = case when j.state is not null then 0 when g.opened_at is null then j.in_row else g.failures end,
           window_began = case when j.same and j.state is null then g.window_began else now() end,
           window_runs = case when j.state is not null then 0 when j.same then g.window_runs + j.runs else j.runs end,
           window_failed = case when j.state is not null then 0 when j.same then g.window_failed + j.failed else j.failed end,
           opened_at = case j.state when 'closed' then null when 'opened' then coalesce(g.opened_at, now()) else g.opened_at end,
           open_until = case j.state when 'closed' then null when 'opened' then clock_timestamp() + j.pause else g.open_until end,
           probe = case when j.trial is not null and g.probe = $6 then null else g.probe end
      from judged j
     where g.id = j.id
    returning g.queue, g.kind, g.tenant, j.state, extract(epoch from g.open_until - clock_timestamp())::float8 as open_for
)
select queue, kind, tenant, state, open_for, pg_notify('duerow_gates', '') from written where state is not null;
