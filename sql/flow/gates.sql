-- Lists the gates that govern any of these streams, as they stand.
--
-- takes  $1 text[] queues, $2 text[] kinds: parallel arrays, one pair per registered handler.
-- gives  id, queue, kind, tenant; paused; blocked_for: seconds, null if not throttled; rate, burst, full_in: seconds
--        until the bucket is full; concurrency, in_use; trips: whether there is a breaker; open_for: seconds until
--        it may be tried, null while it is closed; probing; share: 0.
select g.id, g.queue, g.kind, g.tenant, g.paused_at is not null as paused,
       extract(epoch from g.blocked_until - now())::float8 as blocked_for,
       g.rate, g.burst, coalesce(extract(epoch from g.full_at - now())::float8, 0) as full_in,
       g.concurrency, g.in_use, 0 as share,
       (g.trip_after is not null or g.trip_share is not null) as trips,
       case when g.opened_at is not null then extract(epoch from g.open_until - now())::float8 end as open_for,
       g.probe is not null as probing
  from worker.gates g
 where g.governs
   and exists (select from unnest($1::text[], $2::text[]) as pair(queue, kind)
                where (g.queue is null or g.queue = pair.queue) and (g.kind is null or g.kind = pair.kind))
 order by g.id;
