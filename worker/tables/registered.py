"""The adopted tables that worker.sources lists."""

from __future__ import annotations

import difflib
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from worker.errors import NotFound
from worker.tables.spec import TableSpec

# A table that was renamed is found by its oid; after a restore the oid is another's, and the name
# is right. So the name counts where it leads to a table.
_LISTED = """
with tables as (
    select c.oid, format('%I.%I', n.nspname, c.relname) as written
      from pg_catalog.pg_class c
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p', 'v', 'm', 'f')
)
select s.name,
       coalesce((select s.table_name from tables where written = s.table_name),
                (select written from tables where oid = s.table_oid),
                s.table_name),
       s.key, s.due, s.condition, s.tenant, s.tenant_index is not null
  from worker.sources s
 order by s.name"""


def registered_specs(connection: psycopg.Connection[Any]) -> list[TableSpec]:
    """Ordered by name."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_LISTED).fetchall()
    return [
        TableSpec(name, table, tuple(key), due, condition, tenant, by_tenant=by_tenant)
        for name, table, key, due, condition, tenant, by_tenant in rows
    ]


def registered_spec(connection: psycopg.Connection[Any], name: str) -> TableSpec:
    """Raises NotFound."""
    specs = {spec.name: spec for spec in registered_specs(connection)}
    if name in specs:
        return specs[name]
    near = difflib.get_close_matches(name, specs, 1)
    raise NotFound(
        f"no adopted table is called {name!r}",
        why=f"worker.sources lists {', '.join(specs) or 'none'}",
        hint=f"worker tables check {near[0]}"
        if near
        else f"worker tables add {name} --key id --due COLUMN",
    )
