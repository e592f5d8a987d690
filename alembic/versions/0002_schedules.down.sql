-- Takes the schedules away, with the record of their ticks. Jobs that they enqueued stay.
update worker.installation set schema_version = 1;
drop function worker.schedule;
drop table worker.schedule_ticks, worker.schedules;
drop function worker.tell_of_schedules, worker.replan_schedule;
alter table worker.workers drop column schedules;
