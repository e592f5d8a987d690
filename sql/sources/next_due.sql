-- Tells when the next row of an adopted table falls due.
--
-- gives  next_in: seconds, or null if no row is to come.
select (select extract(epoch from ({due_expression}) - {now})::float8
          from {table} w
         where {due_expression} > {now} and {due_expression} < 'infinity' and w.duerow_owner is null and {condition}
         order by {due_expression}
         limit 1) as next_in;
