"""What the server refused, said as what, why and the next command."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from worker.errors import DatabaseUnreachable, DuerowError, SchemaError
from worker.migrate.frame import LOCK, LOCK_KEY, SCHEMA
from worker.schema import MIGRATE
from worker.url import DatabaseURL

# Sessions that hold what we waited for: locks on our tables, the migration lock, or, if none
# does, whatever transaction is open. Columns that this role may not see are null.
_HOLDERS = text(f"""
    with held as (
        select l.pid, string_agg(distinct coalesce(c.oid::regclass::text, 'the migration lock'),
                                 ', ') as names
          from pg_locks l
          left join pg_class c on c.oid = l.relation and c.relkind in ('r', 'p')
                             and c.relnamespace = to_regnamespace('{SCHEMA}')
         where l.granted
           and l.database = (select oid from pg_database where datname = current_database())
           and (c.oid is not null
                or l.locktype = 'advisory' and l.objsubid = 1
                   and l.classid::bigint << 32 | l.objid::bigint = {LOCK_KEY})
         group by l.pid)
    select a.pid, a.usename, coalesce(nullif(a.application_name, ''), 'a session') as application,
           a.state, extract(epoch from now() - a.xact_start)::int as seconds, held.names
      from pg_stat_activity a
      left join held using (pid)
     where a.datname = current_database()
       and a.pid <> pg_backend_pid()
       and a.backend_type = 'client backend'
       and (held.names is not null or a.xact_start < now() - interval '1 second')
     order by held.names is null, a.xact_start
     limit 3
""")  # noqa: S608 - constants

_OWNER = text(f"select pg_get_userbyid(nspowner) from pg_namespace where nspname = '{SCHEMA}'")  # noqa: S608


def unreachable(error: DBAPIError, url: DatabaseURL) -> DatabaseUnreachable:
    """For a connection that could not be made."""
    return DatabaseUnreachable(
        f"Cannot connect to {place(url)}",
        why=_one_line(error, url),
        hint="check the URL (worker config show), and that Postgres runs and accepts it",
    )


def place(url: DatabaseURL) -> str:
    """`user@host:5432/database`, nothing else of the URL."""
    hosts = ",".join(str(address.located()) for address in url.addresses)
    return f"{url.user}@{hosts}/{url.database}"


def explained(
    error: DBAPIError, connection: Connection, url: DatabaseURL, doing: str
) -> DuerowError:
    """For what failed on a connection; asks the server about the cause where that helps."""
    state = getattr(error.orig, "sqlstate", None)
    if state is None or state[:2] == "08" or state in ("57P01", "57P02", "57P03"):
        return _cut_off(error, url, doing)
    why = _one_line(error, url)
    match state:
        case "55P03":
            return _locked(error, connection, doing)
        case "42501":
            return _forbidden(connection, url, doing, why)
        case "42P07" | "42710" | "42723":
            return SchemaError(
                f"Schema `{SCHEMA}` holds something that these migrations did not make",
                why=why,
                hint=f"rename your schema (alter schema {SCHEMA} rename to ...), then {MIGRATE}",
            )
        case "25006":
            return SchemaError(
                f"{place(url)} is read-only",
                why=f"{why}: a standby, or default_transaction_read_only is on",
                hint="add target_session_attrs=read-write to the URL, or name the primary in it",
            )
        case "2BP01":
            return SchemaError(
                f"Something of yours depends on what {doing} would drop; nothing was changed",
                why=_one_line(error, url, detail=True),
                hint="drop that first, then run it again",
            )
    return SchemaError(
        f"Postgres refused {doing}; nothing was changed",
        why=f"{_one_line(error, url, detail=True)} (SQLSTATE {state})",
        hint="worker db status",
    )


def _cut_off(error: DBAPIError, url: DatabaseURL, doing: str) -> DatabaseUnreachable:
    return DatabaseUnreachable(
        f"The connection to {place(url)} was lost during {doing}",
        why=_one_line(error, url),
        hint="run it again: it happened as a whole or not at all (worker db status tells)",
    )


def _locked(error: DBAPIError, connection: Connection, doing: str) -> SchemaError:
    found = _asked(connection, _HOLDERS)
    holders = "; ".join(map(_holder, found))
    if error.statement == LOCK:
        return SchemaError(
            "Another migration is still running, so this one did not start",
            why=holders or "it held the migration lock for as long as this one waited",
            hint="wait for it to end, then run it again",
        )
    return SchemaError(
        f"A table stayed locked, so {doing} gave up; nothing was changed",
        why=holders or "its holder has gone by now",
        hint=f"let that end, or select pg_terminate_backend({found[0].pid}), then run it again"
        if found
        else "run it again",
    )


def _holder(row: Any) -> str:
    seconds = "" if row.seconds is None else f", {row.state} for {row.seconds} s"
    holds = f" holds {row.names}" if row.names else " has a transaction open"
    return f"pid {row.pid} ({row.application}, role {row.usename}{seconds}){holds}"


def _forbidden(connection: Connection, url: DatabaseURL, doing: str, why: str) -> SchemaError:
    owner = [row[0] for row in _asked(connection, _OWNER)]
    what = f"Role {url.user} may not do what {doing} needs; nothing was changed"
    if owner:
        return SchemaError(
            what,
            why=why,
            hint=f"run it as {owner[0]}, who owns schema `{SCHEMA}`, or grant that role",
        )
    return SchemaError(
        what,
        why=why,
        hint=f'as the database\'s owner: create schema {SCHEMA} authorization "{url.user}"',
    )


def _asked(connection: Connection, question: Any) -> list[Any]:
    """Rows, or none if the server does not answer: the first error is the one to tell."""
    with contextlib.suppress(SQLAlchemyError, psycopg.Error), connection.begin():
        connection.execute(text("set local statement_timeout = '2s'"))
        return list(connection.execute(question))
    return []


def _one_line(error: DBAPIError, url: DatabaseURL, *, detail: bool = False) -> str:
    diag = getattr(error.orig, "diag", None)
    said = (diag and diag.message_primary) or str(error.orig)
    if detail and diag and diag.message_detail:
        said = f"{said}: {diag.message_detail}"
    return url.redact("; ".join(line.strip() for line in said.splitlines() if line.strip()))
