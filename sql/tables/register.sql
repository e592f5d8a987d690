do {tag} begin
    if to_regclass('worker.sources') is null then
        raise warning using message = {lacking},
            hint = 'Run worker db migrate, then: ' || {again};
        return;
    end if;
    if exists (select from unnest({indexes}) as wanted(name)
                where not exists (select from pg_catalog.pg_index i where i.indexrelid = to_regclass(wanted.name) and i.indisvalid)) then
        raise exception using message = {unfinished}, errcode = 'object_not_in_prerequisite_state',
            hint = 'Run this again from the start.';
    end if;
    insert into worker.sources (name, table_oid, table_name, key, due, condition, tenant, index_name, tenant_index)
    values ({name}, {table}::regclass, {written}, {key}, {due}, {condition}, {tenant}, {index_name}, {tenant_index})
    on conflict (name) do update
       set table_oid = excluded.table_oid, table_name = excluded.table_name, key = excluded.key, due = excluded.due,
           condition = excluded.condition, tenant = excluded.tenant, index_name = excluded.index_name,
           tenant_index = excluded.tenant_index;
end {tag}
