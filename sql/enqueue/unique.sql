-- Inserts jobs of which some have a unique key; (kind, unique_key) is given at most once.
--
-- takes  $1 to $9 as sql/enqueue/plain.sql; $10 text[] unique_key; $11 float8[] unique_for in seconds, null
--        for a key that is taken only while its job is live.
-- gives  one row of three arrays, in the order given: bigint[] the job's id, or the id of the one that holds
--        its key; boolean[] whether the job was made; bigint[] null, or the id that a period was booked
--        under although its job was not made.
-- a null id: who holds the key was not there when this statement began. Ask again: a new statement sees it,
--        or finds the key free. First give back what was booked in vain (sql/enqueue/forget.sql).
--
-- The arrays pass through a subquery so that the planner does not know how long they are. It would multiply
-- the subqueries below by 20,000, and then compile the statement for a second (JIT) to run it for a third.
-- Periods first: the row lock on unique_keys makes those who want the same period wait for each other. Both
-- inserts go in the order of the key, so that two calls with the same keys cannot deadlock.
with same as (
    select case cardinality($2::text[]) when 1 then ($2::text[])[1] end as kind,
           case cardinality($3::text[]) when 1 then ($3::text[])[1] end as queue,
           case cardinality($4::smallint[]) when 1 then ($4::smallint[])[1] end as priority,
           case cardinality($5::timestamptz[]) when 1 then ($5::timestamptz[])[1] end as due_at,
           case cardinality($6::float8[]) when 1 then ($6::float8[])[1] end as delay,
           case cardinality($7::text[]) when 1 then ($7::text[])[1] end as tenant,
           case cardinality($8::integer[]) when 1 then ($8::integer[])[1] end as max_attempts,
           case cardinality($9::text[]) when 1 then ($9::text[])[1] end as trace,
           case cardinality($10::text[]) when 1 then ($10::text[])[1] end as unique_key,
           case cardinality($11::float8[]) when 1 then ($11::float8[])[1] end as unique_for
), listed as (
    select string_to_table($1::text, E'\n') as args, unnest((select $2::text[])) as kind,
           unnest((select $3::text[])) as queue, unnest((select $4::smallint[])) as priority,
           unnest((select $5::timestamptz[])) as due_at, unnest((select $6::float8[])) as delay,
           unnest((select $7::text[])) as tenant, unnest((select $8::integer[])) as max_attempts,
           unnest((select $9::text[])) as trace, unnest((select $10::text[])) as unique_key,
           unnest((select $11::float8[])) as unique_for
), given as materialized (
    select nextval('worker.jobs_id_seq') as id, coalesce(g.kind, same.kind) as kind, g.args::jsonb as args,
           coalesce(g.queue, same.queue) as queue, coalesce(g.priority, same.priority) as priority,
           coalesce(g.due_at, same.due_at, now() + make_interval(secs => coalesce(g.delay, same.delay)), now())
               as due_at,
           coalesce(g.tenant, same.tenant) as tenant, coalesce(g.max_attempts, same.max_attempts) as max_attempts,
           coalesce(g.trace, same.trace) as trace, coalesce(g.unique_key, same.unique_key) as unique_key,
           coalesce(g.unique_for, same.unique_for) as unique_for
      from listed g cross join same
), booked as (
    insert into worker.unique_keys as u (kind, unique_key, job_id, expires_at)
    select g.kind, g.unique_key,
           coalesce((select j.id from worker.jobs j where j.kind = g.kind and j.unique_key = g.unique_key), g.id),
           now() + make_interval(secs => g.unique_for)
      from given g
     where g.unique_for is not null
     order by g.kind collate "C", g.unique_key collate "C"
    on conflict (kind, unique_key) do update set job_id = excluded.job_id, expires_at = excluded.expires_at
     where u.expires_at <= now()
    returning u.kind, u.unique_key, u.job_id
), made as (
    insert into worker.jobs (id, kind, args, queue, priority, due_at, tenant, max_attempts, trace, unique_key)
    select g.id, g.kind, g.args, g.queue, g.priority, g.due_at, g.tenant, g.max_attempts, g.trace, g.unique_key
      from given g
     where g.unique_for is null or g.id in (select b.job_id from booked b)
     order by g.kind collate "C", g.unique_key collate "C", g.id
    on conflict (kind, unique_key) where unique_key is not null do nothing
    returning id, queue, due_at
), told as (
    select pg_notify('duerow', due.queue)
      from (select distinct queue from made where due_at <= now() + interval '1 minute') due
), asked as (
    select g.*, g.id in (select m.id from made m) as created, g.id in (select b.job_id from booked b) as booked
      from given g
), answer as (
    select a.id as given_id, a.created, a.booked and not a.created as vain,
           case when a.created then a.id
                else coalesce((select u.job_id from worker.unique_keys u
                                where a.unique_for is not null and u.kind = a.kind and u.unique_key = a.unique_key
                                  and u.expires_at > now()),
                              (select j.id from worker.jobs j where j.kind = a.kind and j.unique_key = a.unique_key))
           end as id
      from asked a
)
select array_agg(a.id order by a.given_id), array_agg(a.created order by a.given_id),
       array_agg(case when a.vain then a.given_id end order by a.given_id), (select count(*) from told)
  from answer a;
