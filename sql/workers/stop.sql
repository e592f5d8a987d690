-- Marks a worker as stopped. Its rows were settled or released before.
--
-- takes  $1 bigint: the worker's id, $2 bigint: rows settled since the start.
update worker.workers set stopped_at = now(), heartbeat_at = now(), running = 0, settled = $2 where id = $1;
