-- Takes the core away, with every row in it. No `cascade`: what a project has built on top of
-- these tables is its own, and stops this rather than going with it.
drop function worker.enqueue, worker.drop_partitions, worker.ensure_partitions, worker.adopted_rows;
drop view worker.attempt_log, worker.all_jobs;
drop table worker.stats, worker.operator_actions, worker.chores, worker.sources, worker.queues,
    worker.attempts, worker.jobs_finished, worker.unique_keys, worker.jobs, worker.workers,
    worker.installation;
