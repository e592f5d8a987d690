-- Claims one due row of worker.jobs of each of the next tenants after a given one, at most $5, in the
-- order of their names; after the last comes the first again. Whatever plan is picked.
--
-- takes  $1 text, $2 text, $3 smallint: queue, kind and priority of the stream; $4 text: the tenant
--        that was served last; $5 int: how many rows; $6 int: how many tenants to visit at most;
--        $7 bigint: the worker's id.
-- gives  as due.sql, and with each row last: the tenant that is served last, in that order.
-- none   none of the tenants visited has a due row, a gate governs the stream, or the worker was
--        declared dead.
--
-- tenants.sql and fair.sql in one, with one probe of jobs_tenant per tenant: the row that the listing
-- has found is locked by its ctid, which under one snapshot is that row's and no other's. If it has
-- changed meanwhile, this snapshot does not see what it has become, and does not claim it. Only where
-- somebody else holds the lock is the tenant's next row looked for, as fair.sql does.
with recursive visited (place, tenant, due, spot, first) as (
    select 0, $4::text, false, null::tid, null::text
    union all
    select v.place + 1, next.tenant, next.due, next.spot, coalesce(v.first, next.tenant)
      from visited v
     cross join lateral (
        (select j.tenant, least(j.due_at, 'infinity') <= now() as due, j.ctid as spot
           from worker.jobs j
          where j.queue = $1 and j.kind = $2 and j.priority = $3
            and j.tenant > v.tenant and j.owner is null
          order by j.tenant, least(j.due_at, 'infinity'), j.id
          limit 1)
        union all
        (select j.tenant, least(j.due_at, 'infinity') <= now(), j.ctid
           from worker.jobs j
          where j.queue = $1 and j.kind = $2 and j.priority = $3
            and j.tenant is not null and j.owner is null
          order by j.tenant, least(j.due_at, 'infinity'), j.id
          limit 1)
        limit 1) next
     where v.place < $6 and next.tenant is distinct from v.first
), taken as materialized (
    select v.place, v.tenant, due.spot
      from visited v
     cross join lateral (
        select found.spot
          from (select w.ctid as spot
                  from worker.jobs w
                 where w.ctid = v.spot
                   for no key update skip locked) found
        union all
        select other.spot
          from (select w.ctid as spot
                  from worker.jobs w
                 where w.queue = $1 and w.kind = $2 and w.priority = $3 and w.tenant = v.tenant
                   and least(w.due_at, 'infinity') <= now()
                   and w.owner is null
                 order by least(w.due_at, 'infinity'), w.id
                 limit 1
                   for no key update skip locked) other
        limit 1) due
     where v.due
       and not exists (
            select from worker.gates g
             where g.governs and (g.queue is null or g.queue = $1) and (g.kind is null or g.kind = $2))
       and exists (select from worker.workers me where me.id = $7 and me.gone_at is null)
     limit $5
)
update worker.jobs j
   set owner = $7, token = j.token + 1, attempt = j.attempt + 1, claimed_at = now()
 where j.ctid = any (array(select taken.spot from taken))
returning j.id, j.queue, j.kind, j.priority, date_part('epoch', j.due_at) as due, j.token, j.attempt, j.max_attempts,
          j.crashes, j.tenant, j.trace, j.args, date_part('epoch', j.created_at) as created,
          date_part('epoch', j.claimed_at) as claimed,
          (select t.tenant from taken t where t.place = (select max(place) from taken)) as last;
