-- Tells the first and the last tenant of an adopted table, in their order.
--
-- gives  one row: first, last, as text; both null if there is none.
select (select w.{tenant}::text from {table} w
         where w.{tenant} is not null and {condition}
         order by w.{tenant} limit 1) as first,
       (select w.{tenant}::text from {table} w
         where w.{tenant} is not null and {condition}
         order by w.{tenant} desc limit 1) as last;
