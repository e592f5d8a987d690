-- Everything that we keep about one row of an adopted table, but its attempts: those are told by
-- audit/attempts_of.sql.
--
-- takes  $1 jsonb: an array of one key, itself an array of texts.
-- none   no row has that key.
--
-- state is idle where the due column is empty, or the condition does not hold.
select r.*
  from (select {asked_keys} from jsonb_array_elements($1::jsonb) as g(key)) o
 cross join lateral (
    select {row_key_of_w} as key, {state} as state, {occurrence_of_w} as due, {due_moment} as next_run_at,
           {tenant_of_w} as tenant, w.duerow_attempt as attempt, w.duerow_crashes as crashes, w.duerow_owner as worker,
           w.duerow_claimed_at as claimed_at, w.duerow_token as token, w.duerow_error as last_error
      from {table} w
     where {key_matches}
     limit 1) r;
