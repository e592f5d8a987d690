-- Claims due rows of worker.jobs for one worker, at most $6, whatever plan is picked.
--
-- takes  $1 text[] queues, $2 text[] kinds, $3 smallint[] priorities: the streams, in the order in
--        which they are to be served; $4 timestamptz[], $5 bigint[]: the floor of each stream, the
--        (due_at, id) of the last row taken from it; $6 int: how many; $7 bigint: the worker's id.
-- gives  the claimed rows, in no promised order, under a new token.
-- none   nothing is due above the floors, the queues are paused, or the worker was declared dead.
--
-- Only owner, token, attempt and claimed_at change: none is indexed, so the update is HOT.
-- The ctids go through an array so that LIMIT holds under every plan: with `id in (select ... limit n
-- for update skip locked)` a nested loop may run the subquery once per outer row and take them all.
update worker.jobs j
   set owner = $7, token = j.token + 1, attempt = j.attempt + 1, claimed_at = now()
 where j.ctid = any (array(
    select due.ctid
      from unnest($1::text[], $2::text[], $3::smallint[], $4::timestamptz[], $5::bigint[])
           as stream(queue, kind, priority, floor_due, floor_id)
     cross join lateral (
        select w.ctid
          from worker.jobs w
         where w.queue = stream.queue and w.kind = stream.kind and w.priority = stream.priority
           and w.due_at <= now()
           and (w.due_at, w.id) > (stream.floor_due, stream.floor_id)
           and w.owner is null
         order by w.due_at, w.id
         limit $6
           for no key update skip locked) due
     where not exists (select from worker.queues q where q.name = stream.queue and q.paused_at is not null)
       and exists (select from worker.workers me where me.id = $7 and me.gone_at is null)
     limit $6))
returning j.id, j.queue, j.kind, j.priority, j.due_at, j.token, j.attempt, j.max_attempts, j.crashes,
          j.tenant, j.trace, j.args, j.created_at, j.claimed_at;
