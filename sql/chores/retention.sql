-- Drops the daily partitions that are too old.
--
-- takes  $1 float8: seconds that finished jobs are kept, $2 float8: seconds that attempts are kept.
-- gives  the names of the dropped.
select worker.drop_partitions('jobs_finished', 'finished_at', now() - make_interval(secs => $1))
union all
select worker.drop_partitions('attempts', 'ended_at', now() - make_interval(secs => $2));
