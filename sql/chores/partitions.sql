-- Makes the daily partitions of the days to come.
--
-- takes  $1 int: how many days ahead.
-- gives  the names of the new ones.
select worker.ensure_partitions('jobs_finished', 'finished_at', $1)
union all
select worker.ensure_partitions('attempts', 'ended_at', $1);
