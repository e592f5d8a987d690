-- Gives back rows that carry this worker's id though it does not hold them: claims whose answer
-- never came (the connection broke between commit and answer).
--
-- takes  $1 bigint: the worker's id, $2 bigint[] ids and $3 bigint[] tokens of the claims it does hold.
-- gives  the ids given back. Reads the whole live table: only run after such a break.
update worker.jobs j
   set owner = null, claimed_at = null, attempt = j.attempt - 1
 where j.owner = $1
   and not exists (
        select from unnest($2::bigint[], $3::bigint[]) as held(id, token)
         where held.id = j.id and held.token = j.token)
returning j.id;
