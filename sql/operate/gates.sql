-- Lists what stands between due rows and the workers now.
--
-- gives  queue, kind, tenant: whose, null for any, tenant '*' for each of them; state: paused, throttled, open, trying,
--        full, or free; until: when a throttle or an open breaker ends; rate, burst, tokens: rows that may start now;
--        concurrency, in_use; trip_after, trip_share, failures: in a row until now; set_by; by, why: of a pause or throttle.
select g.queue, g.kind, g.tenant,
       case when g.paused_at is not null then 'paused'
            when g.blocked_until > now() then 'throttled'
            when g.opened_at is not null and g.open_until > now() then 'open'
            when g.opened_at is not null then 'trying'
            when g.in_use >= coalesce(g.concurrency, each.concurrency) then 'full'
            when g.full_at - now() > make_interval(secs => (coalesce(g.burst, each.burst, 1) - 1) / coalesce(g.rate, each.rate))
            then 'full'
            else 'free' end as state,
       case when g.blocked_until > now() then g.blocked_until when g.opened_at is not null then g.open_until end as until,
       g.rate, g.burst,
       floor(coalesce(g.burst, 1) - greatest(0, extract(epoch from g.full_at - now())) * g.rate)::integer as tokens,
       g.concurrency, g.in_use, g.trip_after, g.trip_share, g.failures, g.set_by,
       g.paused_by as by, coalesce(g.reason, case when g.blocked_until > now() then g.blocked_why end) as why
  from worker.gates g
  left join worker.gates each on each.tenant = '*' and g.tenant <> '*'
       and each.queue is not distinct from g.queue and each.kind is not distinct from g.kind
 where g.governs or g.in_use > 0 or g.opened_at is not null
 order by g.queue nulls first, g.kind nulls first, g.tenant nulls first;
