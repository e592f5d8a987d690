-- Claims one due row of an adopted table of each of the next tenants after a given one, at most $2, in
-- their order; after the last comes the first again. Whatever plan is picked.
--
-- takes  $1 bigint: the worker's id, $2 int: how many rows, $3: the moment from which rows count as
--        due; $4 text: the tenant that was served last; $5 int: how many tenants to visit at most.
-- gives  as claim.sql, but in place of rank last: the tenant that is served last, in that order, as text.
-- none   as claim/one_each.sql, which tells how it works; of the text of the tenant see tenants.sql.
--
-- What is due before $3 never runs; of a tenant that has such a row the next one is looked for too.
with recursive visited (place, tenant, due, spot, first) as (
    select 0, $4::text, false, null::tid, null::text
    union all
    select v.place + 1, next.tenant collate "default", next.due, next.spot,
           coalesce(v.first, next.tenant) collate "default"
      from visited v
     cross join lateral (
        (select w.{tenant}::text as tenant, {turn_expression} <= {now} as due, w.ctid as spot
           from {table} w
          where w.{tenant} > v.tenant::{tenant_type} and w.duerow_owner is null and {condition}
          order by w.{tenant}, {turn_expression}
          limit 1)
        union all
        (select w.{tenant}::text, {turn_expression} <= {now}, w.ctid
           from {table} w
          where w.{tenant} is not null and w.duerow_owner is null and {condition}
          order by w.{tenant}, {turn_expression}
          limit 1)
        limit 1) next
     where v.place < $5 and next.tenant collate "default" is distinct from v.first
), taken as materialized (
    select v.place, v.tenant, due.spot
      from visited v
     cross join lateral (
        select found.spot
          from (select w.ctid as spot
                  from {table} w
                 where w.ctid = v.spot and {turn_expression} >= $3
                   for no key update skip locked) found
        union all
        select other.spot
          from (select w.ctid as spot
                  from {table} w
                 where w.{tenant} = v.tenant::{tenant_type}
                   and {turn_expression} <= {now} and {turn_expression} >= $3
                   and w.duerow_owner is null
                   and {condition}
                 order by {turn_expression}
                 limit 1
                   for no key update skip locked) other
        limit 1) due
     where v.due
       and {ungoverned_source}
       and exists (select from worker.workers me where me.id = $1 and me.gone_at is null)
     limit $2
)
update {table} t
   set duerow_owner = $1, duerow_claimed_at = now(), duerow_state = null,
       duerow_token = greatest(t.duerow_token + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint),
       duerow_attempt = case when t.duerow_held_for = t.{due} then t.duerow_attempt + 1 else 1 end,
       duerow_crashes = case when t.duerow_held_for = t.{due} then t.duerow_crashes else 0 end
 where t.ctid = any (array(select taken.spot from taken))
returning {keys}, {row_key_of_t},
          (select l.tenant from taken l where l.place = (select max(place) from taken)) as last, t.{due} as occurrence,
          case when t.duerow_held_for = t.{due} then t.duerow_retry_at else t.{due} end as due_at,
          t.duerow_token, t.duerow_attempt, t.duerow_crashes, {tenant_of_t}, t.duerow_claimed_at{columns};
