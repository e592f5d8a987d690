"""The transaction that every migration runs in, online and offline: its settings and its lock.

The lock belongs to the transaction, not to the session: it goes with its holder however that
ends, and means the same through a pooler in transaction mode.
"""

from __future__ import annotations

SCHEMA = "worker"
VERSION_TABLE = "schema_revisions"  # beside a project's own alembic_version, which stays as it is

LOCK_KEY = "hashtextextended('worker.migrate', 0)"
LOCK = f"select pg_advisory_xact_lock({LOCK_KEY})"

# Other than `create schema if not exists`, this needs no privilege where the schema stands.
CREATE_SCHEMA = f"""\
do $$ begin
    if to_regnamespace('{SCHEMA}') is null then
        create schema {SCHEMA};
    end if;
end $$"""

DROP_VERSION_TABLE = f"drop table if exists {SCHEMA}.{VERSION_TABLE}"


# Lifts what a role or a database may set for ordinary statements; the last came with Postgres 17.
NO_TIME_LIMITS = """\
select set_config(name, '0', true) from pg_settings
 where name in ('statement_timeout', 'transaction_timeout')"""


def wait_at_most(seconds: float) -> str:
    """Bounds every wait for a lock in this transaction; 0 would mean for ever, so at least 1 ms."""
    return f"set local lock_timeout = '{max(1, round(seconds * 1000))}ms'"


def require_revision(expected: object) -> str:
    """Refuses to go on unless the database is at this revision: a script cannot look by itself."""
    return f"""\
do $$
declare
    found text := 'base';
begin
    if to_regclass('{SCHEMA}.{VERSION_TABLE}') is not null then
        select version_num into found from {SCHEMA}.{VERSION_TABLE};
    end if;
    if found is distinct from '{expected}' then
        raise exception using hint = 'worker db status',
            message = 'this script starts at {expected}, but the database is at ' || found;
    end if;
end $$"""  # noqa: S608 - constants and ids of revisions
