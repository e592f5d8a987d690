-- The statements that give a partitioned table one of our indexes, as far as it lacks it. Postgres
-- builds none CONCURRENTLY on the whole: an empty one on each table that has partitions, one
-- CONCURRENTLY on each partition, and these are attached to those, the lowest first.
with tree as (
    select t.relid, t.parentrelid, t.isleaf, t.level, c.relname, n.nspname,
           case when t.level = 0 then {index_name}
                when octet_length({prefix} || c.relname) <= 63 then {prefix} || c.relname
                else {prefix} || left(encode(sha256(convert_to(c.relname, 'UTF8')), 'hex'), 32) end as own_name
      from pg_partition_tree({table}::regclass) as t
      join pg_catalog.pg_class c on c.oid = t.relid
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
), attached as (
    select i.indrelid, i.indisvalid, c.relname
      from pg_partition_tree(to_regclass({index}::text)) as t
      join pg_catalog.pg_index i on i.indexrelid = t.relid
      join pg_catalog.pg_class c on c.oid = i.indexrelid
), here as (
    select tree.*, attached.indrelid is not null as is_attached, coalesce(attached.relname, own_name) as index_name
      from tree left join attached on attached.indrelid = tree.relid
), statements as (
    select 1 as phase, level as place, 0 as part, nspname, relname, true as patient,
           format('create index if not exists %I on only %I.%I using btree (%s)%s', index_name, nspname, relname, {on}, {where}) as statement
      from here where not isleaf and not is_attached
    union all
    select 2, 0, part, nspname, relname, false,
           case part when 0 then format('drop index concurrently if exists %I.%I', nspname, index_name)
                     else format('create index concurrently %I on %I.%I using btree (%s)%s', index_name, nspname, relname, {on}, {where}) end
      from here cross join (values (0), (1)) as parts(part) where isleaf and not is_attached
    union all
    select 3, -low.level, 0, low.nspname, low.relname, true,
           format('alter index %I.%I attach partition %I.%I', up.nspname, up.index_name, low.nspname, low.index_name)
      from here low join here up on up.relid = low.parentrelid where not low.is_attached
)
select patient, statement from statements order by phase, place, nspname, relname, part
