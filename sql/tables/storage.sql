-- Sums up what the statistics collector knows of a table, with its partitions.
--
-- takes  $1 oid[]: the table, or its partitions.
-- gives  live, dead: row versions; updates, hot: since the last reset, and how many of them were HOT;
--        bytes: on disk without indexes.
select coalesce(sum(s.n_live_tup), 0)::bigint as live, coalesce(sum(s.n_dead_tup), 0)::bigint as dead,
       coalesce(sum(s.n_tup_upd), 0)::bigint as updates, coalesce(sum(s.n_tup_hot_upd), 0)::bigint as hot,
       coalesce(sum(pg_table_size(s.relid)), 0)::bigint as bytes
  from pg_catalog.pg_stat_all_tables s
 where s.relid = any ($1::oid[]);
