-- Notes what a chore did.
--
-- takes  $1 text: the chore, $2 text: its result.
update worker.chores
   set last_result = $2, last_ms = extract(epoch from clock_timestamp() - now()) * 1000
 where name = $1;
