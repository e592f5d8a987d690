-- Puts rows of an adopted table that wait off until another time, later or sooner. It costs no attempt.
-- The due column stays as it is: once its owner changes it, that time counts.
--
-- takes  $1 jsonb: an array of keys, each an array of texts, $2 text: who asks, $3 text: why, or null;
--        $4 timestamptz: until when, or null and $5 float8: seconds from now.
-- gives  for each what became of it and, where that matters, detail:
--        snoozed   it waits; detail is until when
--        running   it runs just now; nothing was done
--        finished  detail is dead or cancelled
--        idle, busy, missing: as retry.sql
with asked as materialized (
    select g.n, g.key as parts, {asked_keys} from jsonb_array_elements($1::jsonb) with ordinality as g(key, n)
), seen as materialized (
    select o.n, r.*
      from asked o
     cross join lateral (
        select {row_key_of_w} as row_key, {state} as state from {table} w where {key_matches} limit 1) r
), taken as materialized (
    select o.*, ours.*
      from asked o
     cross join lateral (
        select w.ctid as place, w.tableoid as part
          from {table} w
         where {key_matches} and {state} in ('due', 'retrying', 'scheduled')
         limit 1
           for no key update of w skip locked) ours
), written as (
    update {table} t
       set duerow_held_for = t.{due}, duerow_retry_at = {until}, duerow_state = null,
           duerow_attempt = case when {still_counts} then t.duerow_attempt else 0 end,
           duerow_crashes = case when {still_counts} then t.duerow_crashes else 0 end
      from taken o
     where {at_place} and t.duerow_owner is null
    returning o.n, coalesce($4::timestamptz, now() + make_interval(secs => $5::float8)) as until
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $2::text, 'snooze', {name}, s.row_key, concat_ws(': ', 'until ' || until, $3::text) from seen s join written using (n)
), woken as (
    select count(pg_notify('duerow', {name})) as notifications from (select from written where until <= now() limit 1) freed
)
select coalesce(s.row_key, array_to_string(array(select jsonb_array_elements_text(o.parts)), ',')) as key,
       case when s.n is null then 'missing'
            when w.n is not null then 'snoozed'
            when s.state in ('dead', 'cancelled') then 'finished'
            when s.state in ('running', 'idle') then s.state
            else 'busy' end as outcome,
       case when w.n is not null then w.until::text
            when s.state in ('dead', 'cancelled') then s.state end as detail
  from asked o
  left join seen s on s.n = o.n
  left join written w on w.n = o.n
 cross join woken
 order by o.n;
