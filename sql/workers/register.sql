-- Registers a process start.
--
-- takes  $1 name, $2 host, $3 pid, $4 version, $5 text[] queues, $6 text[] kinds, $7 slots, $8 float8 lease in seconds.
-- gives  id: never used before.
insert into worker.workers (name, host, pid, version, queues, kinds, slots, lease)
values ($1, $2, $3, $4, $5, $6, $7, make_interval(secs => $8))
returning id;
