-- Lists the streams that have live rows, and when each has its next row to come.
--
-- takes  $1 text[] queues, $2 text[] kinds: parallel arrays, one pair per registered handler;
--        $3 text[] queues, $4 text[] kinds, $5 smallint[] priorities: the streams that are known.
-- gives  queue, kind, priority, next_in: seconds until the next waiting row falls due that is not
--        due yet, or null. Streams that are known are given whether they have live rows or not.
-- none   none is known, and no live row of these kinds.
--
-- A loose index scan: one index probe per priority in use, not one per row. Known streams are not
-- probed but passed by, for all their rows may be dead and yet in the index, while an old snapshot
-- is held. Others are entered from behind, by the row that is due last: the dead ones lie in front.
with recursive priorities as (
    select pair.queue, pair.kind, 32768 as priority
      from unnest($1::text[], $2::text[]) as pair(queue, kind)
    union all
    select p.queue, p.kind,
           coalesce((select j.priority::int from worker.jobs j
                      where j.queue = p.queue and j.kind = p.kind
                        and j.priority < p.priority and j.priority > coalesce(known.priority, -32769)
                      order by j.priority desc, j.due_at desc limit 1),
                    known.priority)
      from priorities p
     cross join lateral (
        select max(k.priority)::int as priority
          from unnest($3::text[], $4::text[], $5::smallint[]) as k(queue, kind, priority)
         where k.queue = p.queue and k.kind = p.kind and k.priority < p.priority) known
     where p.priority is not null
)
select p.queue, p.kind, p.priority,
       (select extract(epoch from j.due_at - now())::float8 from worker.jobs j
         where j.queue = p.queue and j.kind = p.kind and j.priority = p.priority
           and j.due_at > now() and j.owner is null
         order by j.due_at limit 1) as next_in
  from priorities p
 where p.priority < 32768;
