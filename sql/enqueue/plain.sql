-- Inserts jobs without unique keys.
--
-- takes  $1 text: the args of each job as JSON, one a line; then a column each as an array: $2 text[] kind,
--        $3 text[] queue, $4 smallint[] priority, $5 timestamptz[] due_at, $6 float8[] delay in seconds,
--        $7 text[] tenant, $8 int[] max_attempts, $9 text[] trace. An array of one stands for every job,
--        an empty one for null; otherwise it has a value, or null, for each.
-- gives  one row: bigint[] the ids, in the order given; and how many queues were notified.
-- none   cannot be: each job makes a row, or the statement fails.
--
-- One text and short arrays because each array of n texts costs about 1 us a job in both drivers and
-- on the server; unnest in the select list because there it streams, where in FROM it fills a tuplestore.
with same as (
    select case cardinality($2::text[]) when 1 then ($2::text[])[1] end as kind,
           case cardinality($3::text[]) when 1 then ($3::text[])[1] end as queue,
           case cardinality($4::smallint[]) when 1 then ($4::smallint[])[1] end as priority,
           case cardinality($5::timestamptz[]) when 1 then ($5::timestamptz[])[1] end as due_at,
           case cardinality($6::float8[]) when 1 then ($6::float8[])[1] end as delay,
           case cardinality($7::text[]) when 1 then ($7::text[])[1] end as tenant,
           case cardinality($8::integer[]) when 1 then ($8::integer[])[1] end as max_attempts,
           case cardinality($9::text[]) when 1 then ($9::text[])[1] end as trace
), given as (
    select string_to_table($1::text, E'\n') as args, unnest($2::text[]) as kind, unnest($3::text[]) as queue,
           unnest($4::smallint[]) as priority, unnest($5::timestamptz[]) as due_at, unnest($6::float8[]) as delay,
           unnest($7::text[]) as tenant, unnest($8::integer[]) as max_attempts, unnest($9::text[]) as trace
), made as (
    insert into worker.jobs (kind, args, queue, priority, due_at, tenant, max_attempts, trace)
    select coalesce(g.kind, same.kind), g.args::jsonb, coalesce(g.queue, same.queue),
           coalesce(g.priority, same.priority),
           coalesce(g.due_at, same.due_at, now() + make_interval(secs => coalesce(g.delay, same.delay)), now()),
           coalesce(g.tenant, same.tenant), coalesce(g.max_attempts, same.max_attempts),
           coalesce(g.trace, same.trace)
      from given g cross join same
    returning id, queue, due_at
), told as (
    select pg_notify('duerow', due.queue)
      from (select distinct queue from made where due_at <= now() + interval '1 minute') due
)
select array(select id from made order by id), (select count(*) from told);
