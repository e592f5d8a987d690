-- Describes a table: everything that is asked of it before rows are claimed from it.
--
-- takes  $1 text: its name, every part in double quotes: "donations" or "shop"."orders".
-- gives  one row, description: a JSON object as text, read by worker/tables/description.py.
-- none   never: for an unknown name `oid` is null and `near` lists names that differ in case alone,
--        or that lie in a schema which is not on the search path.
--
-- Names are compared as text, never cast to `name`: the cast would cut them at 63 bytes in silence.
with wanted as (
    select parts[cardinality(parts)] as name, case when cardinality(parts) > 1 then parts[1] end as schema
      from (select parse_ident($1) as parts) split
), relation as (
    select c.*, n.nspname,
           format('%s.%s', quote_ident(n.nspname), quote_ident(c.relname)) as written
      from wanted
      join pg_catalog.pg_class c on c.relname::text = wanted.name
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      left join unnest(current_schemas(true)) with ordinality as path(schema, place) on path.schema = n.nspname
     where case when wanted.schema is null then path.place is not null else n.nspname::text = wanted.schema end
     order by path.place
     limit 1
), parts as (  -- every table of a partition tree but its root; the root alone where there is none
    select p.oid, p.relname, p.relkind, p.reloptions, p.reltuples, p.relpages, tree.level, tree.isleaf as leaf,
           format('%s.%s', quote_ident(n.nspname), quote_ident(p.relname)) as written
      from relation r
     cross join lateral pg_partition_tree(r.oid) as tree
      join pg_catalog.pg_class p on p.oid = tree.relid
      join pg_catalog.pg_namespace n on n.oid = p.relnamespace
     where r.relkind = 'p' and tree.level > 0
), columns as (
    select jsonb_agg(jsonb_build_object(
               'name', a.attname,
               'quoted', quote_ident(a.attname),
               'type', format_type(a.atttypid, a.atttypmod),
               'base', format_type(coalesce(nullif(t.typbasetype, 0), t.oid), null),
               'domain', t.typtype = 'd',
               'category', case when t.typtype in ('c', 'r', 'm') then t.typtype else t.typcategory end,
               'not_null', a.attnotnull or t.typnotnull,
               'generated', a.attgenerated <> '',
               'default', pg_get_expr(d.adbin, d.adrelid),
               'select', has_column_privilege(r.oid, a.attnum, 'select'),
               'update', has_column_privilege(r.oid, a.attnum, 'update')) order by a.attnum) as found
      from relation r
      join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
      join pg_catalog.pg_type t on t.oid = a.atttypid
      left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
), indexes as (
    select jsonb_agg(jsonb_build_object(
               'name', c.relname,
               'table', i.indrelid::bigint,
               'unique', i.indisunique,
               'primary', i.indisprimary,
               'valid', i.indisvalid and i.indisready and i.indislive,
               'method', am.amname,
               'columns', (select jsonb_agg(a.attname order by k.place)
                             from unnest(i.indkey::int2[]) with ordinality as k(attnum, place)
                             left join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.attnum > 0
                            where k.place <= i.indnkeyatts),
               'expression', pg_get_expr(i.indexprs, i.indrelid),
               'predicate', pg_get_expr(i.indpred, i.indrelid),
               'definition', pg_get_indexdef(i.indexrelid)) order by c.relname) as found
      from (  -- the table's own, and what is attached to ours in its partitions
          select i.indexrelid from relation r join pg_catalog.pg_index i on i.indrelid = r.oid
          union
          select tree.relid
            from relation r
            join pg_catalog.pg_index i on i.indrelid = r.oid
            join pg_catalog.pg_class c on c.oid = i.indexrelid and c.relkind = 'I' and c.relname ~ '^duerow_(due|tenant)_'
           cross join lateral pg_partition_tree(i.indexrelid) as tree) listed
      join pg_catalog.pg_index i on i.indexrelid = listed.indexrelid
      join pg_catalog.pg_class c on c.oid = i.indexrelid
      join pg_catalog.pg_am am on am.oid = c.relam
), triggers as (
    select jsonb_agg(jsonb_build_object(
               'name', t.tgname,
               'table', t.tgrelid::regclass::text,
               'function', t.tgfoid::regproc::text,
               'before', t.tgtype & 2 <> 0,
               'row', t.tgtype & 1 <> 0,
               'when', t.tgqual is not null,
               'guarded', t.tgqual is not null and pg_get_triggerdef(t.oid) like '%duerow\_owner%',
               'columns', (select coalesce(jsonb_agg(a.attname), '[]')
                             from unnest(t.tgattr::int2[]) as k(attnum)
                             join pg_catalog.pg_attribute a on a.attrelid = t.tgrelid and a.attnum = k.attnum)) order by t.tgname) as found
      from (select oid from relation union all select oid from parts) tables
      join pg_catalog.pg_trigger t on t.tgrelid = tables.oid
     where not t.tgisinternal and t.tgenabled <> 'D' and t.tgtype & 16 <> 0 and t.tgparentid = 0
), registrations as (
    select jsonb_agg(jsonb_build_object(
               'name', s.name, 'table', s.table_name, 'key', s.key, 'due', s.due, 'condition', s.condition,
               'tenant', s.tenant, 'index', s.index_name, 'tenant_index', s.tenant_index) order by s.added_at) as found
      from worker.sources s
      join relation r on s.table_oid = r.oid or s.table_name = r.written
)
select jsonb_build_object(
           'oid', r.oid::bigint,
           'schema', r.nspname,
           'table', r.relname,
           'written', r.written,
           'kind', r.relkind,
           'persistence', r.relpersistence,
           'partition_of', case when r.relispartition then (select i.inhparent::regclass::text from pg_catalog.pg_inherits i where i.inhrelid = r.oid) end,
           'inherits', not r.relispartition and exists (select from pg_catalog.pg_inherits i where i.inhrelid = r.oid),
           'inherited', r.relkind = 'r' and exists (select from pg_catalog.pg_inherits i where i.inhparent = r.oid),
           'typed', r.reloftype <> 0,
           'width', r.relnatts,
           'rules', (select coalesce(jsonb_agg(w.rulename), '[]') from pg_catalog.pg_rewrite w
                      where w.ev_class = r.oid and w.ev_type = '2' and w.ev_enabled <> 'D'),
           'options', coalesce(to_jsonb(r.reloptions), '[]'),
           'rows', case when r.relkind = 'p' then coalesce((select sum(greatest(p.reltuples, 0)) from parts p where p.leaf), 0)
                        else r.reltuples end,
           'columns', coalesce((select found from columns), '[]'),
           'indexes', coalesce((select found from indexes), '[]'),
           'triggers', coalesce((select found from triggers), '[]'),
           'partition_key', (select coalesce(jsonb_agg(a.attname), '[]')
                               from pg_catalog.pg_partitioned_table p
                              cross join unnest(p.partattrs::int2[]) as k(attnum)
                               left join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attnum = k.attnum and k.attnum > 0
                              where p.partrelid = r.oid),
           'partitions', (select coalesce(jsonb_agg(jsonb_build_object(
                                     'oid', p.oid::bigint, 'table', p.relname, 'written', p.written, 'kind', p.relkind,
                                     'leaf', p.leaf, 'level', p.level, 'options', coalesce(to_jsonb(p.reloptions), '[]'))
                                     order by p.level, p.written), '[]') from parts p),
           'row_security', r.relkind in ('r', 'p') and row_security_active(r.oid),
           'role', current_user,
           'owner', pg_get_userbyid(r.relowner),
           'owned', pg_has_role(r.relowner, 'usage'),
           'schema_usage', has_schema_privilege(r.relnamespace, 'usage'),
           'select', has_table_privilege(r.oid, 'select'),
           'record', has_table_privilege('worker.attempts', 'insert'),
           'registrations', coalesce((select found from registrations), '[]'),
           'near', (select coalesce(jsonb_agg(other.written order by other.written), '[]')
                      from (select format('%s.%s', quote_ident(n.nspname), quote_ident(c.relname)) as written
                              from pg_catalog.pg_class c
                              join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                             where r.oid is null and c.relkind in ('r', 'p', 'v', 'm', 'f')
                               and lower(c.relname::text) = lower(wanted.name)
                               and n.nspname not like 'pg\_%'
                             limit 5) other)
       )::text as description
  from wanted
  left join relation r on true;
