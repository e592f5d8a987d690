-- Takes back what workers that are gone held of the gates' concurrency. Their rows were swept before.
--
-- gives  gate, in_use: how much of it came back.
with locked as (
    select g.id
      from worker.gates g
     where g.id in (
            select s.gate from worker.gate_shares s
             where not exists (select from worker.workers w where w.id = s.worker and w.gone_at is null and w.stopped_at is null))
     order by g.id
       for no key update
), taken as (
    delete from worker.gate_shares s
     using locked l
     where s.gate = l.id
       and not exists (select from worker.workers w where w.id = s.worker and w.gone_at is null and w.stopped_at is null)
    returning s.gate, s.in_use
), sums as (
    select gate, sum(in_use)::integer as in_use from taken group by gate
)
update worker.gates g
   set in_use = greatest(0, g.in_use - sums.in_use)
  from sums
 where g.id = sums.gate
returning g.id as gate, sums.in_use;
