-- Claims due rows of an adopted table for one worker, at most $2, whatever plan is picked.
--
-- takes  $1 bigint: the worker's id, $2 int: how many, $3: the floor, the due time of the last row taken;
--        $4 boolean: the caller holds the gates that govern the source.
-- gives  the row's key, the key as text, its occurrence (the due column), due_at, token, attempt,
--        crashes, tenant, claimed_at, and the columns that the handler reads; in no promised order.
-- none   nothing is due, gates govern it, or the worker was declared dead.
--
-- A template: names are quoted and put in once, at start. Only bookkeeping columns change, none of
-- them indexed: with room on the page the update is HOT, and fires the table's own update triggers.
-- The attempt goes on from where it was only if the due time is still the one it counts for.
-- A token is at least the time in microseconds: a row that is deleted and inserted again under the
-- same key must not get a token that its old claim, which may still be running, has.
update {table} t
   set duerow_owner = $1, duerow_claimed_at = now(), duerow_state = null,
       duerow_token = greatest(t.duerow_token + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint),
       duerow_attempt = case when t.duerow_held_for = t.{due} then t.duerow_attempt + 1 else 1 end,
       duerow_crashes = case when t.duerow_held_for = t.{due} then t.duerow_crashes else 0 end
 where t.ctid = any (array(
    select w.ctid
      from {table} w
     where {due_expression} <= {now} and {due_expression} >= $3
       and w.duerow_owner is null
       and {condition}
       and {ungoverned}
       and exists (select from worker.workers me where me.id = $1 and me.gone_at is null)
     order by {due_expression}
     limit $2
       for no key update skip locked))
returning {keys}, {row_key_of_t}, 0 as rank, t.{due} as occurrence,
          case when t.duerow_held_for = t.{due} then t.duerow_retry_at else t.{due} end as due_at,
          t.duerow_token, t.duerow_attempt, t.duerow_crashes, {tenant_of_t}, t.duerow_claimed_at{columns};
