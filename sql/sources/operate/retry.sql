-- Runs rows of an adopted table again, now. One that is dead or cancelled begins its attempts anew; one
-- that waits for later keeps them. The due column stays as it is, so the idempotency key does too, and
-- the token goes on growing.
--
-- takes  $1 jsonb: an array of keys, each an array of texts, $2 text: who asks, $3 text: why, or null.
-- gives  for each what became of it and, where that matters, detail:
--        retried  it was dead or cancelled; detail says which
--        due      it waited for a later time, or was due already
--        running  it runs just now; nothing was done
--        idle     its due column is empty, or the condition does not hold: it would not run
--        busy     it is being claimed, settled or written by somebody in this moment: ask again
--        missing  no row has that key
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
         where {key_matches} and {state} in ('dead', 'cancelled', 'retrying', 'scheduled')
         limit 1
           for no key update of w skip locked) ours
), written as (
    update {table} t
       set duerow_held_for = t.{due}, duerow_retry_at = {now}, duerow_state = null,
           duerow_attempt = case when {still_counts} then t.duerow_attempt else 0 end,
           duerow_crashes = case when {still_counts} then t.duerow_crashes else 0 end
      from taken o
     where {at_place} and t.duerow_owner is null
    returning o.n
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason)
    select $2::text, 'retry', {name}, s.row_key, $3::text from seen s join written using (n)
), woken as (
    select count(pg_notify('duerow', {name})) as notifications from (select from written limit 1) freed
)
select coalesce(s.row_key, array_to_string(array(select jsonb_array_elements_text(o.parts)), ',')) as key,
       case when s.n is null then 'missing'
            when w.n is not null then case when s.state in ('dead', 'cancelled') then 'retried' else 'due' end
            when s.state in ('running', 'due', 'idle') then s.state
            else 'busy' end as outcome,
       case when w.n is not null and s.state in ('dead', 'cancelled') then s.state end as detail
  from asked o
  left join seen s on s.n = o.n
  left join written w on w.n = o.n
 cross join woken
 order by o.n;
