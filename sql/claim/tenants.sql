-- Lists tenants of one stream of worker.jobs that have a due row, the next ones after a given one, in
-- the order of their names; after the last comes the first again.
--
-- takes  $1 text, $2 text, $3 smallint: queue, kind and priority of the stream; $4 text: the tenant
--        where the last listing ended, or null to begin with the first; $5 int: how many to give;
--        $6 int: how many to visit at most, those whose rows are all to come included.
-- gives  tenant, place (how many were visited to find it), due. The tenant at place $6 is given
--        even if it is not due, for the next listing goes on there; less than $5 rows of which none
--        stands at $6 are all that there are.
-- none   no row of this stream has a tenant.
--
-- A loose index scan: one probe of jobs_tenant per tenant visited, however many rows it has. It finds
-- the tenant's first row that nobody has claimed; if that is not due, none of the tenant is.
with recursive visited (place, tenant, due, first) as (
    select 0, $4::text, false, null::text
    union all
    select v.place + 1, next.tenant, next.due, coalesce(v.first, next.tenant)
      from visited v
     cross join lateral (
        (select j.tenant, least(j.due_at, 'infinity') <= now() as due
           from worker.jobs j
          where j.queue = $1 and j.kind = $2 and j.priority = $3
            and j.tenant > v.tenant and j.owner is null
          order by j.tenant, least(j.due_at, 'infinity'), j.id
          limit 1)
        union all
        (select j.tenant, least(j.due_at, 'infinity') <= now()
           from worker.jobs j
          where j.queue = $1 and j.kind = $2 and j.priority = $3
            and j.tenant is not null and j.owner is null
          order by j.tenant, least(j.due_at, 'infinity'), j.id
          limit 1)
        limit 1) next
     where v.place < $6 and next.tenant is distinct from v.first
)
select v.tenant, v.place, v.due
  from visited v
 where v.place > 0 and (v.due or v.place = $6)
 limit $5;
