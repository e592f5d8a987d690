"""The audit queries: what an operator asks the tables at 3 a.m., one file each in sql/audit/.

The files are plain SQL for any client. A parameter is a setting `duerow.<name>`, so the defaults
stand in the SQL itself and nothing is spliced into it:

    psql -c "set duerow.row = '42'" -f sql/audit/timeline.sql

The comment that a file begins with is its help. Its first line is the question that the query
answers; under `Columns` and `Parameters` it lists what comes out and what goes in.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from worker.assets import sql_directory
from worker.errors import DuerowError, NotFound, SchemaError, UsageError
from worker.schema import MIGRATE

_PARAMETER = re.compile(r"^  (\w+) *= (.+?) {2,}(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Parameter:
    """default: as it would be given; None where there is none: the query then takes any value, or,
    if required, does not run."""

    name: str
    default: str | None
    required: bool
    about: str


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """help: the whole first comment; its first paragraph is the question that is answered."""

    name: str
    help: str
    parameters: tuple[Parameter, ...]
    sql: str

    @property
    def question(self) -> str:
        return self.help.splitlines()[0]


def queries() -> list[AuditQuery]:
    """Every query in sql/audit/, by name."""
    return list(_all().values())


def query(name: str) -> AuditQuery:
    """Raises NotFound."""
    try:
        return _all()[name]
    except KeyError:
        near = difflib.get_close_matches(name, _all(), 1)
        raise NotFound(
            f"there is no audit query {name!r}",
            why=f"did you mean {near[0]}?" if near else f"there are: {', '.join(_all())}",
            hint="worker audit list",
        ) from None


def run(
    connection: psycopg.Connection[Any], name: str, /, *, timeout: float = 30.0, **params: object
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The columns and rows that a query gives, read in a transaction that can write nothing.

    timeout: seconds that it may take. params: by name; one that is None was not given.
    A transaction that is open on the connection goes on as it was.

    Raises NotFound, UsageError for parameters that do not fit, SchemaError, DuerowError for one
    that took too long; what else psycopg raises is left as it is.
    """
    asked = query(name)
    settings = _settings(asked, params)
    try:
        with (
            connection.transaction(force_rollback=True),
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            cursor.execute("set transaction read only")
            # Compiling a plan over thirty partitions takes longer than running it.
            for setting in [("jit", "off"), ("statement_timeout", str(round(timeout * 1000)))]:
                cursor.execute("select set_config(%s, %s, true)", setting)
            for setting in settings.items():
                cursor.execute("select set_config(%s, %s, true)", setting)
            cursor.execute(asked.sql.encode())
            return [column.name for column in cursor.description or ()], cursor.fetchall()
    except psycopg.errors.QueryCanceled as error:
        raise _too_slow(asked, timeout) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise SchemaError(
            "the audit queries read the schema `worker`, which is not there or too old",
            why=_primary(error),
            hint=MIGRATE,
        ) from error
    except psycopg.DataError as error:
        raise UsageError(
            f"audit query {name!r}: a parameter has a value that does not fit",
            why=_primary(error),
            hint=f"worker audit show {name}",
        ) from error


@cache
def _all() -> dict[str, AuditQuery]:
    paths = sorted((sql_directory() / "audit").glob("*.sql"))
    return {path.stem: _read(path.stem, path.read_bytes().decode()) for path in paths}


def _read(name: str, sql: str) -> AuditQuery:
    lines = []
    for line in sql.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line[2:].removeprefix(" "))
    text = "\n".join(lines)
    _, _, listed = text.partition("\nParameters\n")
    return AuditQuery(name, text, tuple(map(_parameter, _PARAMETER.findall(listed))), sql)


def _parameter(found: tuple[str, str, str]) -> Parameter:
    name, default, about = found
    has_none = default in ("(any)", "(required)")
    return Parameter(name, None if has_none else default, default == "(required)", about)


def _settings(asked: AuditQuery, params: dict[str, object]) -> dict[str, str]:
    """`duerow.<name>` -> value; an empty one is read as not given."""
    given = {name: str(value) for name, value in params.items() if value is not None}
    known = {parameter.name for parameter in asked.parameters}
    if unknown := sorted(given.keys() - known):
        raise UsageError(
            f"audit query {asked.name!r} has no parameter {unknown[0]!r}",
            why=f"it has: {', '.join(sorted(known)) or 'none'}",
            hint=f"worker audit show {asked.name}",
        )
    for parameter in asked.parameters:
        if parameter.required and not given.get(parameter.name):
            raise UsageError(
                f"audit query {asked.name!r} needs the parameter {parameter.name!r}",
                why=parameter.about,
                hint=f"worker audit run {asked.name} --{parameter.name} ...",
            )
    return {f"duerow.{name}": given.get(name, "") for name in known}


def _too_slow(asked: AuditQuery, timeout: float) -> DuerowError:
    bounded = any(parameter.name == "since" for parameter in asked.parameters)
    return DuerowError(
        f"audit query {asked.name!r} took longer than {timeout:g} s and was stopped",
        why="there is much to read, or the server is busy",
        hint=f"worker audit run {asked.name} --since '1 hour'" if bounded else "worker audit list",
    )


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or type(error).__name__
