-- Gives back rows that carry this worker's id though it does not hold them: claims whose answer never came.
--
-- takes  $1 bigint: the worker's id, $2 bigint[]: the tokens, $3... the keys of the rows it does hold.
-- gives  the keys of those given back. Walks the due rows, by the index.
update {table} t
   set duerow_owner = null, duerow_claimed_at = null, duerow_attempt = t.duerow_attempt - 1
 where {due_expression_of_t} <= {now} and {condition} and t.duerow_owner = $1
   and not exists (
        select from unnest($2::bigint[], {key_arrays}) as o(token, {key_aliases})
         where {key_matches_t} and o.token = t.duerow_token)
returning {keys};
