-- Lists rows of an adopted table that have a due time: due and running ones, then those to come, then
-- the dead and the cancelled; within each the earliest due first.
--
-- takes  each may be null for any: $1 text[] states (due, running, retrying, scheduled, dead, cancelled),
--        $2 text tenant, $3 float8: the last attempt ended no more seconds ago than this, $4 text: class
--        of the error that it ended with; $5 int: how many.
-- gives  key as worker.attempts has it, parts: the key's columns as a JSON array of texts, state, and
--        what the table of `worker rows list` shows.
--
-- A template, as every file here. Each span of time is read off the due index, so rows that are out of
-- the question are not walked over. A row whose due column is empty, or for which the condition does
-- not hold, is nobody's business here.
select r.key, r.parts, r.state, r.tenant, r.due_at, r.attempt, r.crashes, r.worker, r.claimed_at,
       last.ended_at, last.error_type, r.last_error
  from (values (1, '-infinity', {now}, array['due', 'running']),
               (2, {now}, 'infinity', array['retrying', 'scheduled']),
               (3, 'infinity', 'infinity', array['dead', 'cancelled'])) as span(n, lowest, highest, states)
 cross join lateral (
    select {row_key_of_w} as key, {key_parts} as parts, {state} as state, {tenant_of_w} as tenant,
           {due_expression} as falls_due, {due_moment} as due_at,
           case when w.duerow_held_for = w.{due} or w.duerow_owner is not null then w.duerow_attempt else 0 end as attempt,
           w.duerow_crashes as crashes, w.duerow_owner as worker, w.duerow_claimed_at as claimed_at,
           w.duerow_token as token, w.duerow_error as last_error
      from {table} w
     where {due_expression} >= span.lowest and {due_expression} <= span.highest and {condition}
       and {state} = any (span.states)
       and ($1::text[] is null or {state} = any ($1::text[]))
       and ($2::text is null or {tenant_of_w} = $2::text)
       and ($3::float8 is null and $4::text is null
            or exists (select from worker.attempts a
                        where a.source = {name} and a.row_key = {row_key_of_w} and a.token = w.duerow_token
                          and ($3::float8 is null or a.ended_at >= now() - make_interval(secs => $3::float8))
                          and ($4::text is null or a.error_type = $4::text)))
     order by {due_expression}
     limit $5::integer) r
  left join lateral (
    select a.ended_at, a.error_type
      from worker.attempts a
     where a.source = {name} and a.row_key = r.key and a.token = r.token
     order by a.ended_at desc
     limit 1) last on true
 where $1::text[] is null or span.states && $1::text[]
 order by span.n, r.falls_due
 limit $5::integer;
