-- Makes the gates of some tenants, which the settings of the scope's tenant '*' are for.
--
-- takes  $1 text: queue, or null; $2 text: kind, or null; $3 text[]: tenants.
-- gives  tenant, id; not those that another transaction is making just now.
with made as (
    insert into worker.gates (queue, kind, tenant)
    select $1, $2, t from unnest($3::text[]) as t order by t
        on conflict on constraint gates_scope do nothing
    returning tenant, id
)
select tenant, id from made
union all
select g.tenant, g.id from worker.gates g
 where g.tenant = any ($3::text[]) and g.queue is not distinct from $1::text and g.kind is not distinct from $2::text;
