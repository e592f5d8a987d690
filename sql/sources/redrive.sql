-- Runs dead rows of an adopted table again, by the rule of its handler: some time after they died, and
-- only so many times. Their attempts begin anew.
--
-- takes  $1 float8: seconds since a row died, $2 int: how many times one may be run again, $3 int: most
--        rows at once.
-- gives  redriven: how many.
--
-- How often a row died for the due time that stands in it is counted in worker.attempts: tokens are
-- times in microseconds, so those of this due time are above it, and a run that succeeded starts the
-- count again. Dead rows stand together in the due index, at infinity. A row whose claim is younger than
-- $1 is left out by its token, before its attempts are looked for.
with dead as materialized (
    select {keys_of_w}, {row_key_of_w} as row_key, w.duerow_token as token, {occurrence_of_w} as occurrence
      from {table} w
     where {due_expression} = 'infinity' and {condition}
       and w.duerow_state = 'dead' and w.duerow_owner is null and isfinite(w.{due})
       and w.duerow_token <= (extract(epoch from now()) - $1::float8) * 1000000
), ripe as materialized (
    select d.*, deaths.count
      from dead d
     cross join lateral (
        select count(*) filter (where a.outcome = 'dead' and a.token > coalesce(a.last_done, 0)) as count,
               max(a.ended_at) filter (where a.outcome = 'dead' and a.token = d.token) as died_at
          from (select e.outcome, e.token, e.ended_at,
                       max(e.token) filter (where e.outcome = 'done') over () as last_done
                  from worker.attempts e
                 where e.source = {name} and e.row_key = d.row_key
                   and e.token >= extract(epoch from d.occurrence) * 1000000 and e.ended_at >= d.occurrence) a) deaths
     where deaths.died_at <= now() - make_interval(secs => $1::float8)
       and deaths.count <= $2::integer
     limit $3::integer
), taken as materialized (
    select o.*, ours.*
      from ripe o
     cross join lateral (
        select w.ctid as place, w.tableoid as part
          from {table} w
         where {key_matches} and w.duerow_token = o.token and w.duerow_owner is null and w.duerow_state = 'dead'
         limit 1
           for no key update of w skip locked) ours
), written as (
    update {table} t
       set duerow_held_for = t.{due}, duerow_retry_at = {now}, duerow_state = null, duerow_attempt = 0, duerow_crashes = 0
      from taken o
     where {at_place} and t.duerow_token = o.token and t.duerow_owner is null
    returning o.row_key, o.count
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select 'redrive rule', 'redrive', {name}, row_key, format('time %s of %s', count, $2::integer) from written
), woken as (
    select count(pg_notify('duerow', {name})) as notifications from (select from written limit 1) freed
)
select count(*) as redriven from written, woken;
