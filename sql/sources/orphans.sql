-- Lists the owners of due, claimed rows who are no live workers. Walks the due rows, by the index.
--
-- gives  owner.
select distinct w.duerow_owner as owner
  from {table} w
 where {due_expression} <= {now} and {condition} and w.duerow_owner is not null
   and not exists (select from worker.workers m
                    where m.id = w.duerow_owner and m.gone_at is null and m.stopped_at is null);
