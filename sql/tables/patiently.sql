do {tag}
declare
    waiting constant text := current_setting('lock_timeout');
    holders text;
begin
    perform set_config('lock_timeout', {timeout}, true);
    for attempt in 1 .. {tries} loop
        begin
            {statement};
            perform set_config('lock_timeout', waiting, true);
            return;
        exception when lock_not_available or deadlock_detected then
            perform pg_sleep(least(attempt * 0.25, 5));
        end;
    end loop;
    select string_agg(format('pid %s (%s, %s for %s)', a.pid, coalesce(nullif(a.application_name, ''), a.usename), a.state,
                             date_trunc('second', clock_timestamp() - a.xact_start)), '; ') into holders
      from pg_catalog.pg_stat_activity a
     where a.pid <> pg_backend_pid()
       and a.pid in (select l.pid from pg_catalog.pg_locks l
                      where l.granted and l.relation = to_regclass({table})
                        and l.database = (select oid from pg_catalog.pg_database where datname = current_database()));
    raise exception using errcode = 'lock_not_available',
        message = format('%s stayed locked through %s tries of %s', {table}, {tries}, {timeout}),
        detail = coalesce('It is held by ' || holders, 'Its holder has gone by now') || '. What was done before this is kept.',
        hint = 'Let that end, or end it with pg_terminate_backend(), and run this again.';
end {tag}
