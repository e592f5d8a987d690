-- Claims due rows of a table, partitioned or not, in the order of another column than the due one.
-- It considers the 1,000 rows that have been due longest, and takes the first $2 of them, so that its
-- cost is bounded whatever the backlog.
--
-- takes  $1 bigint: the worker's id, $2 int: how many, $3: the moment from which rows count as due;
--        $4 boolean: the caller holds the gates that govern the source.
-- gives, none  as claim.sql, and rank: the place in that order.
with oldest as materialized (
    select c.*, row_number() over (order by c.ordered_by, c.due_at) as rank
      from (select w.tableoid as part, w.ctid as place, {keys_of_w}, w.{order} as ordered_by, {due_expression} as due_at
              from {table} w
             where {due_expression} <= {now} and {due_expression} >= $3
               and w.duerow_owner is null
               and {condition}
               and {ungoverned}
               and exists (select from worker.workers me where me.id = $1 and me.gone_at is null)
             order by {due_expression}
             limit greatest(1000, $2)) c
), due as materialized (
    select o.part, t.ctid as place, {key_aliases}, o.rank
      from oldest o
      join {table} t on {at_place}
     where t.duerow_owner is null
     order by o.rank
     limit $2
       for no key update of t skip locked
)
update {table} t
   set duerow_owner = $1, duerow_claimed_at = now(), duerow_state = null,
       duerow_token = greatest(t.duerow_token + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint),
       duerow_attempt = case when t.duerow_held_for = t.{due} then t.duerow_attempt + 1 else 1 end,
       duerow_crashes = case when t.duerow_held_for = t.{due} then t.duerow_crashes else 0 end
  from due o
 where {at_place}
returning {keys}, {row_key_of_t}, o.rank, t.{due} as occurrence,
          case when t.duerow_held_for = t.{due} then t.duerow_retry_at else t.{due} end as due_at,
          t.duerow_token, t.duerow_attempt, t.duerow_crashes, {tenant_of_t}, t.duerow_claimed_at{columns};
