-- Tells the first and the last tenant of one stream of worker.jobs, in the order of their names.
--
-- takes  $1 text, $2 text, $3 smallint: queue, kind and priority of the stream.
-- gives  one row: first, last; both null if no row of the stream has a tenant.
select (select j.tenant from worker.jobs j
         where j.queue = $1 and j.kind = $2 and j.priority = $3 and j.tenant is not null
         order by j.tenant limit 1) as first,
       (select j.tenant from worker.jobs j
         where j.queue = $1 and j.kind = $2 and j.priority = $3 and j.tenant is not null
         order by j.tenant desc limit 1) as last;
