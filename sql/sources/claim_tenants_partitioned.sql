-- Claims due rows of a partitioned table tenant by tenant: as claim_tenants.sql, but a ctid names a
-- row only together with its partition; see claim_partitioned.sql.
--
-- takes, gives, none  as claim_tenants.sql.
with due as materialized (
    select found.*
      from unnest($4::text[], $5::int[]) as asked(tenant, most)
     cross join lateral (
        select w.tableoid as part, w.ctid as place, {keys_of_w}
          from {table} w
         where w.{tenant} = asked.tenant::{tenant_type}
           and {turn_expression} <= {now} and {turn_expression} >= $3
           and w.duerow_owner is null
           and {condition}
         order by {turn_expression}
         limit asked.most
           for no key update skip locked) found
     where not exists (select from worker.queues q where q.name = {name} and q.paused_at is not null)
       and exists (select from worker.workers me where me.id = $1 and me.gone_at is null)
     limit $2
)
update {table} t
   set duerow_owner = $1, duerow_claimed_at = now(), duerow_state = null,
       duerow_token = greatest(t.duerow_token + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint),
       duerow_attempt = case when t.duerow_held_for = t.{due} then t.duerow_attempt + 1 else 1 end,
       duerow_crashes = case when t.duerow_held_for = t.{due} then t.duerow_crashes else 0 end
  from due o
 where {at_place}
returning {keys}, {row_key_of_t}, 0 as rank, t.{due} as occurrence,
          case when t.duerow_held_for = t.{due} then t.duerow_retry_at else t.{due} end as due_at,
          t.duerow_token, t.duerow_attempt, t.duerow_crashes, {tenant_of_t}, t.duerow_claimed_at{columns};
