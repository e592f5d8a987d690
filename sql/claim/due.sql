-- Claims due rows of worker.jobs for one worker, at most $6, whatever plan is picked.
--
-- takes  $1 text[] queues, $2 text[] kinds, $3 smallint[] priorities: the streams, in the order in
--        which they are to be served; $4 timestamptz[], $5 bigint[]: the floor of each stream, the
--        (due_at, id) of the last row taken from it; $6 int: how many; $7 bigint: the worker's id;
--        $8 boolean: the caller holds the gates that govern these streams.
-- gives  the claimed rows, in no promised order, under a new token; moments as seconds since 1970.
-- none   nothing is due above the floors, gates govern the streams, or the worker was declared dead.
--
-- Only owner, token, attempt and claimed_at change: none is indexed, so the update is HOT.
-- Where a gate goes by tenants, only jobs without one are taken; the others by fair.sql.
-- The ctids go through an array so that LIMIT holds under every plan: with `id in (select ... limit n
-- for update skip locked)` a nested loop may run the subquery once per outer row and take them all.
update worker.jobs j
   set owner = $7, token = j.token + 1, attempt = j.attempt + 1, claimed_at = now()
 where j.ctid = any (array(
    select due.ctid
      from (select s.*,
                   exists (select from worker.gates g
                            where g.governs and g.tenant is not null
                              and (g.queue is null or g.queue = s.queue) and (g.kind is null or g.kind = s.kind)) as by_tenant
              from unnest($1::text[], $2::text[], $3::smallint[], $4::timestamptz[], $5::bigint[])
                   as s(queue, kind, priority, floor_due, floor_id)
             where $8 or not exists (
                   select from worker.gates g
                    where g.governs and g.tenant is null
                      and (g.queue is null or g.queue = s.queue) and (g.kind is null or g.kind = s.kind))
            offset 0) stream
     cross join lateral (
        select w.ctid
          from worker.jobs w
         where w.queue = stream.queue and w.kind = stream.kind and w.priority = stream.priority
           and w.due_at <= now()
           and (w.due_at, w.id) > (stream.floor_due, stream.floor_id)
           and w.owner is null
           and (w.tenant is null or not stream.by_tenant)
         order by w.due_at, w.id
         limit $6
           for no key update skip locked) due
     where exists (select from worker.workers me where me.id = $7 and me.gone_at is null)
     limit $6))
returning j.id, j.queue, j.kind, j.priority, date_part('epoch', j.due_at) as due, j.token, j.attempt, j.max_attempts,
          j.crashes, j.tenant, j.trace, j.args, date_part('epoch', j.created_at) as created,
          date_part('epoch', j.claimed_at) as claimed;
