-- Cancels rows of an adopted table. One that waits does not run until its owner changes the due column,
-- or an operator retries it. The worker that runs one is asked to stop it, and hears of it at once where
-- it listens, at its next heartbeat elsewhere.
--
-- takes  $1 jsonb: an array of keys, each an array of texts, $2 text: who asks, $3 text: why, or null.
-- gives  for each what became of it and, where that matters, detail:
--        cancelled  it waited
--        asked      it runs; its worker was asked, by this call or before. detail is the worker's id
--        finished   detail is dead or cancelled
--        idle, busy, missing: as retry.sql
with asked as materialized (
    select g.n, g.key as parts, {asked_keys} from jsonb_array_elements($1::jsonb) with ordinality as g(key, n)
), seen as materialized (
    select o.n, r.*
      from asked o
     cross join lateral (
        select {row_key_of_w} as row_key, {state} as state, w.duerow_owner as owner, w.duerow_token as token
          from {table} w
         where {key_matches}
         limit 1) r
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
       set duerow_held_for = t.{due}, duerow_retry_at = 'infinity', duerow_state = 'cancelled',
           duerow_error = concat_ws(': ', 'cancelled by ' || $2::text, $3::text)
      from taken o
     where {at_place} and t.duerow_owner is null
    returning o.n
), recorded as (
    insert into worker.operator_actions (actor, action, source, target, reason, worker, token)
    select $2::text, 'cancel', {name}, s.row_key, $3::text, null, null from seen s join written using (n)
    union all
    select $2::text, 'cancel', {name}, s.row_key, $3::text, s.owner, s.token
      from seen s
     where s.state = 'running'
       and not exists (
        select from worker.operator_actions a
         where a.worker = s.owner and a.token = s.token and a.source = {name} and a.target = s.row_key
           and a.handled_at is null)
), told as (
    select count(pg_notify('duerow_worker', owner::text)) as notifications
      from (select distinct owner from seen where state = 'running') owners
)
select coalesce(s.row_key, array_to_string(array(select jsonb_array_elements_text(o.parts)), ',')) as key,
       case when s.n is null then 'missing'
            when w.n is not null then 'cancelled'
            when s.state = 'running' then 'asked'
            when s.state in ('dead', 'cancelled') then 'finished'
            when s.state = 'idle' then 'idle'
            else 'busy' end as outcome,
       case when s.state = 'running' then s.owner::text
            when s.state in ('dead', 'cancelled') then s.state end as detail
  from asked o
  left join seen s on s.n = o.n
  left join written w on w.n = o.n
 cross join told
 order by o.n;
