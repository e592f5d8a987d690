-- Gives back rows that carry this worker's id though it does not hold them: claims whose answer
-- never came (the connection broke between commit and answer).
--
-- takes  $1 bigint: the worker's id, $2 bigint[]: the ids it does hold.
-- gives  the ids given back. Reads the whole live table: only run after such a break.
update worker.jobs
   set owner = null, claimed_at = null, attempt = attempt - 1
 where owner = $1 and not (id = any ($2::bigint[]))
returning id;
