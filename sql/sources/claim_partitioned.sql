-- Claims due rows of a partitioned table: as claim.sql, but a ctid names a row only together with
-- its partition. The materialized CTE keeps LIMIT exact under every plan; matching the key too, which
-- holds the partition key, keeps the update from probing every partition for every row.
--
-- takes  $1 bigint: the worker's id, $2 int: how many, $3: the floor, the due time of the last row taken;
--        $4 boolean: the caller holds the gates that govern the source.
-- gives, none  as claim.sql.
with due as materialized (
    select w.tableoid as part, w.ctid as place, {keys_of_w}
      from {table} w
     where {due_expression} <= {now} and {due_expression} >= $3
       and w.duerow_owner is null
       and {condition}
       and {ungoverned}
       and exists (select from worker.workers me where me.id = $1 and me.gone_at is null)
     order by {due_expression}
     limit $2
       for no key update skip locked
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
