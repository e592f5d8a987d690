-- Claims due rows of worker.jobs tenant by tenant, at most $6, whatever plan is picked.
--
-- takes  $1 text, $2 text, $3 smallint: queue, kind and priority of the stream; $4 text[]: the
--        tenants, in the order in which they are served; $5 int[]: how many of each at most;
--        $6 int: how many in all; $7 bigint: the worker's id;
--        $8 boolean: the caller holds the gates that govern the stream.
-- gives  as due.sql.
-- none   none of these tenants has a due row, a gate governs it, or the worker was declared dead.
--
-- One probe of jobs_tenant per tenant; those behind the one that makes it $6 are not looked at.
-- The ctids go through an array for the reason that due.sql tells. The due time is told in the words
-- of jobs_tenant, so that no other index will do.
update worker.jobs j
   set owner = $7, token = j.token + 1, attempt = j.attempt + 1, claimed_at = now()
 where j.ctid = any (array(
    select due.ctid
      from unnest($4::text[], $5::int[]) as asked(tenant, most)
     cross join lateral (
        select w.ctid
          from worker.jobs w
         where w.queue = $1 and w.kind = $2 and w.priority = $3 and w.tenant = asked.tenant
           and least(w.due_at, 'infinity') <= now()
           and w.owner is null
         order by least(w.due_at, 'infinity'), w.id
         limit asked.most
           for no key update skip locked) due
     where ($8 or not exists (
            select from worker.gates g
             where g.governs and (g.queue is null or g.queue = $1) and (g.kind is null or g.kind = $2)))
       and exists (select from worker.workers me where me.id = $7 and me.gone_at is null)
     limit $6))
returning j.id, j.queue, j.kind, j.priority, date_part('epoch', j.due_at) as due, j.token, j.attempt, j.max_attempts,
          j.crashes, j.tenant, j.trace, j.args, date_part('epoch', j.created_at) as created,
          date_part('epoch', j.claimed_at) as claimed;
