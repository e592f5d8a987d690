-- Counts the rows of an adopted table that are due, claimed and dead. Walks the claim's index only.
--
-- gives  due, claimed (of those), dead, oldest_due_seconds (of the due ones that nobody has claimed).
select ready.due, ready.claimed, ended.dead, ready.oldest_due_seconds
  from (select count(*) as due, count(*) filter (where duerow_owner is not null) as claimed,
               extract(epoch from {now} - min({expression}) filter (where duerow_owner is null))::float8 as oldest_due_seconds
          from {table}
         where ({condition}) and ({expression}) <= {now}) ready,
       (select count(*) filter (where duerow_state = 'dead') as dead
          from {table}
         where ({condition}) and ({expression}) = 'infinity') ended
