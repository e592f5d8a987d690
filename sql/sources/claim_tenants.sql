-- Claims due rows of an adopted table tenant by tenant, at most $2, whatever plan is picked.
--
-- takes  $1 bigint: the worker's id, $2 int: how many in all, $3: the moment from which rows count as
--        due; $4 text[]: the tenants, in the order in which they are served; $5 int[]: how many of
--        each at most.
-- gives, none  as claim.sql.
--
-- One probe of the index per tenant; those behind the one that makes it $2 are not looked at. The time
-- that decides is told in the words of that index, so that no other will do.
update {table} t
   set duerow_owner = $1, duerow_claimed_at = now(), duerow_state = null,
       duerow_token = greatest(t.duerow_token + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint),
       duerow_attempt = case when t.duerow_held_for = t.{due} then t.duerow_attempt + 1 else 1 end,
       duerow_crashes = case when t.duerow_held_for = t.{due} then t.duerow_crashes else 0 end
 where t.ctid = any (array(
    select due.place
      from unnest($4::text[], $5::int[]) as asked(tenant, most)
     cross join lateral (
        select w.ctid as place
          from {table} w
         where w.{tenant} = asked.tenant::{tenant_type}
           and {turn_expression} <= {now} and {turn_expression} >= $3
           and w.duerow_owner is null
           and {condition}
         order by {turn_expression}
         limit asked.most
           for no key update skip locked) due
     where not exists (select from worker.queues q where q.name = {name} and q.paused_at is not null)
       and exists (select from worker.workers me where me.id = $1 and me.gone_at is null)
     limit $2))
returning {keys}, {row_key_of_t}, 0 as rank, t.{due} as occurrence,
          case when t.duerow_held_for = t.{due} then t.duerow_retry_at else t.{due} end as due_at,
          t.duerow_token, t.duerow_attempt, t.duerow_crashes, {tenant_of_t}, t.duerow_claimed_at{columns};
