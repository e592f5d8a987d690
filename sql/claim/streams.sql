-- Lists the streams that have live rows, and when each has its next row to come.
--
-- takes  $1 text[] queues, $2 text[] kinds: parallel arrays, one pair per registered handler.
-- gives  queue, kind, priority, next_in: seconds until the next waiting row falls due that is not
--        due yet, or null.
-- none   no live row of these kinds.
--
-- A loose index scan: one index probe per priority in use, not one per row.
with recursive priorities as (
    select pair.queue, pair.kind,
           (select j.priority from worker.jobs j
             where j.queue = pair.queue and j.kind = pair.kind
             order by j.priority limit 1) as priority
      from unnest($1::text[], $2::text[]) as pair(queue, kind)
    union all
    select p.queue, p.kind,
           (select j.priority from worker.jobs j
             where j.queue = p.queue and j.kind = p.kind and j.priority > p.priority
             order by j.priority limit 1)
      from priorities p
     where p.priority is not null
)
select p.queue, p.kind, p.priority,
       (select extract(epoch from j.due_at - now())::float8 from worker.jobs j
         where j.queue = p.queue and j.kind = p.kind and j.priority = p.priority
           and j.due_at > now() and j.owner is null
         order by j.due_at limit 1) as next_in
  from priorities p
 where p.priority is not null;
