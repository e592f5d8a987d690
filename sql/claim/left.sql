-- Counts the rows that are due and in nobody's hands: what a drain leaves.
--
-- takes  $1 text[] queues, $2 text[] kinds: parallel arrays, one pair per registered handler;
--        $3 int: count no further than this.
-- gives  left_over: how many; those that a gate or a pause keeps from being claimed are among them.
select count(*) as left_over
  from (select from unnest($1::text[], $2::text[]) as pair(queue, kind)
          join worker.jobs j on j.queue = pair.queue and j.kind = pair.kind
         where j.due_at <= now() and j.owner is null
         limit $3) due;
