-- Counts the rows of an adopted table that are due and in nobody's hands: what a drain leaves.
--
-- takes  $1 int: count no further than this, $2: the first moment that a row can be due.
-- gives  left_over: how many; those that a gate or a pause keeps from being claimed are among them.
select count(*) as left_over
  from (select from {table} w
         where {due_expression} <= {now} and {due_expression} >= $2
           and w.duerow_owner is null and {condition}
         limit $1) due;
