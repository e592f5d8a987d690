-- Lists the owners of claimed jobs who are no live workers. Reads the live table: run rarely.
--
-- gives  owner.
select distinct j.owner
  from worker.jobs j
 where j.owner is not null
   and not exists (select from worker.workers m
                    where m.id = j.owner and m.gone_at is null and m.stopped_at is null);
