-- Lists tenants of an adopted table that have a due row, the next ones after a given one, in their
-- order; after the last comes the first again.
--
-- takes  $1 text: the tenant where the last listing ended, or null to begin with the first; $2 int:
--        how many to give; $3 int: how many to visit at most, those whose rows are all to come included.
-- gives, none  as claim/tenants.sql, tenant as text.
--
-- A loose index scan, as there, of the index on the tenant and the time that decides. The text of the
-- tenant is kept, in the default collation: a column may have one of its own, which the comparison
-- then takes, and a recursive query must not change it on its way.
with recursive visited (place, tenant, due, first) as (
    select 0, $1::text, false, null::text
    union all
    select v.place + 1, next.tenant collate "default", next.due, coalesce(v.first, next.tenant) collate "default"
      from visited v
     cross join lateral (
        (select w.{tenant}::text as tenant, {turn_expression} <= {now} as due
           from {table} w
          where w.{tenant} > v.tenant::{tenant_type} and w.duerow_owner is null and {condition}
          order by w.{tenant}, {turn_expression}
          limit 1)
        union all
        (select w.{tenant}::text, {turn_expression} <= {now}
           from {table} w
          where w.{tenant} is not null and w.duerow_owner is null and {condition}
          order by w.{tenant}, {turn_expression}
          limit 1)
        limit 1) next
     where v.place < $3 and next.tenant collate "default" is distinct from v.first
)
select v.tenant, v.place, v.due
  from visited v
 where v.place > 0 and (v.due or v.place = $3)
 limit $2;
