-- Live rows that no live worker has a handler for, or whose queue none serves.
--
-- gives  queue, kind. A loose index scan: one probe per (queue, kind) in use.
with recursive present as (
    (select queue, kind from worker.jobs order by queue, kind limit 1)
    union all
    (select next.queue, next.kind
       from present p
      cross join lateral (
            select j.queue, j.kind from worker.jobs j
             where (j.queue, j.kind) > (p.queue, p.kind)
             order by j.queue, j.kind limit 1) next)
)
select p.queue, p.kind
  from present p
 where not exists (
    select from worker.workers w
     where w.gone_at is null and w.stopped_at is null
       and p.queue = any (w.queues) and p.kind = any (w.kinds));
