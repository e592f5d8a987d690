-- Decides ticks: moves the schedules on, writes the ticks down and enqueues their jobs, all or nothing.
--
-- takes  of each schedule, as arrays: $1 text[] name, $2 text[] version and $3 timestamptz[] next_at as look.sql gave
--        them, $4 timestamptz[] the next tick (null: none is to come), $5 text[] problem, $6 int[] how many ticks were
--        missed and $7 timestamptz[] the last of those; of each tick to enqueue: $8 text[] schedule, $9 timestamptz[]
--        tick, $10 text[] the tick as its handler is told, $11 float8[] seconds that its job is put off;
--        $12 bigint: the worker's id.
-- gives  name, tick_at, outcome, count, job_id of each tick that was decided, kind and queue; and a row with tick_at
--        null for a schedule that was only planned.
-- none   another worker is at it; or these schedules have been decided, or changed, since they were looked at; or
--        somebody holds a lock on them: look again.
--
-- One statement, so that no worker can freeze or die while it holds the lock. What makes a tick happen once is
-- that `next_at` is what it was; the advisory lock only keeps the others from queueing up for the rows.
with plan as materialized (
    select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::integer[],
                         $7::timestamptz[])
                  as p(name, version, was_at, next_at, problem, missed, missed_at)
), turn as materialized (
    select pg_try_advisory_xact_lock(hashtextextended('duerow chore schedules', 0)) as ours
), mine as materialized (
    select s.name, p.next_at, p.problem, p.missed, p.missed_at, s.kind, s.queue, s.args, s.priority, s.tenant,
           s.max_attempts, s.tick_as, s.overlap, s.last_job_id
      from worker.schedules s
      join plan p on p.name = s.name
     where (select ours from turn)
       and s.next_at is not distinct from p.was_at and s.xmin::text = p.version and s.paused_at is null
       for no key update of s skip locked
), asked as (
    select m.name, t.at as tick_at, t.told, t.put_off,
           -- The first of several ticks would be the one that the next meets: with `skip` there is only one.
           m.overlap = 'skip' and exists (select from worker.jobs j where j.id = m.last_job_id) as busy
      from unnest($8::text[], $9::timestamptz[], $10::text[], $11::float8[]) as t(name, at, told, put_off)
      join mine m on m.name = t.name
), ticks as materialized (
    select a.*, case when not a.busy then nextval('worker.jobs_id_seq') end as job_id
      from (select * from asked order by tick_at) a
), recorded as (
    insert into worker.schedule_ticks (schedule, tick_at, outcome, count, job_id, worker)
    select name, tick_at, case when busy then 'overlapped' else 'enqueued' end, 1, job_id, $12::bigint from ticks
    union all
    select name, missed_at, 'missed', missed, null, $12::bigint from mine where missed > 0
        on conflict (schedule, tick_at) do nothing
    returning schedule, tick_at, outcome, count, job_id
), made as (
    insert into worker.jobs (id, kind, args, queue, priority, due_at, tenant, max_attempts)
    select t.job_id, m.kind,
           case when m.tick_as is null then m.args else m.args || jsonb_build_object(m.tick_as, t.told) end,
           m.queue, m.priority, t.tick_at + make_interval(secs => t.put_off), m.tenant, m.max_attempts
      from recorded r
      join ticks t on t.name = r.schedule and t.tick_at = r.tick_at and t.job_id = r.job_id
      join mine m on m.name = t.name
    returning id, queue, due_at
), told as (
    select count(pg_notify('duerow', due.queue)) as notifications
      from (select distinct queue from made where due_at <= now() + interval '1 minute') due
), moved as (
    update worker.schedules s
       set next_at = m.next_at, problem = m.problem,
           ended_at = case when m.next_at is null and m.problem is null then now() end,
           last_tick_at = coalesce((select max(r.tick_at) from recorded r where r.schedule = m.name and r.job_id is not null),
                                   s.last_tick_at),
           last_job_id = coalesce((select max(r.job_id) from recorded r where r.schedule = m.name), s.last_job_id)
      from mine m
     where s.name = m.name
    returning s.name
)
select v.name, r.tick_at, r.outcome, r.count, r.job_id, m.kind, m.queue
  from moved v
  join mine m on m.name = v.name
  left join recorded r on r.schedule = v.name
 cross join told
 order by r.tick_at nulls first;
