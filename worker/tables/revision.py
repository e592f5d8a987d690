"""A plan as the text of an Alembic revision, which stands by itself: it imports nothing of ours."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from worker.tables.script import SETTINGS
from worker.tables.step import Action, Plan

MARK = "# duerow tables: "
"""How the line starts that tells our revisions from others."""

# What sqlalchemy.text takes for a parameter; a backslash keeps it from that.
_PARAMETER = re.compile(r"(?<![:\w$\\]):(?=[\w$]+(?![:\w$]))")

_FILE = '''\
"""{title}

Each statement commits by itself, so that none keeps a lock for longer. If it stops half way, run it
again: it goes on where it stopped.

Revision ID: {id}
Revises: {parents}
Create Date: {created}
"""

{imports}
{mark}
# {command}
revision = {revision}
down_revision = {down_revision}
branch_labels = None
depends_on = None


{upgrade}

{downgrade}\
'''
_PATIENTLY = '''

def patiently(change: str) -> None:
    """Runs what needs the table for itself, for a moment. It waits briefly for that, and often: who
    comes after it waits as long as it does."""
    op.execute(PATIENTLY.replace("@statement@", change))


PATIENTLY = {patiently}
'''
_OFFLINE = """\
    if op.get_context().as_sql:
        raise RuntimeError(
            "which statements these are depends on the partitions that the database has; there: "
            {instead}
        )
"""
_EACH = """\
        query = {query}
        for needs_lock, statement in op.get_bind().execute(sa.text(query)).all():
            change = PATIENTLY.replace("@statement@", statement) if needs_lock else statement
            op.get_bind().exec_driver_sql({change}, execution_options={{"no_parameters": True}})
"""


@dataclass(frozen=True, slots=True)
class Heading:
    """id, parents: of the revision. command: what was typed. verb: add or remove; name: whom."""

    id: str
    parents: tuple[str, ...]
    command: str
    verb: str
    name: str
    created: dt.datetime


def revision(heading: Heading, plan: Plan) -> str:
    """The file's text."""
    back = plan.reversed()
    actions = [action for step in (*plan.steps, *back.steps) for action in step.up]
    each = any(action.each for action in actions)
    patient = each or any(action.patient for action in actions)
    tail = _PATIENTLY.format(patiently=_literal(_escaped(plan.patiently)))
    text = _FILE.format(
        title=_title(heading),
        id=heading.id,
        parents=", ".join(heading.parents),
        created=heading.created,
        imports="import sqlalchemy as sa\n" * each + "from alembic import op\n",
        mark=mark(heading.verb, heading.name, plan),
        command=_one_line(heading.command),
        revision=_quoted(heading.id),
        down_revision=_down(heading.parents),
        upgrade="".join(_function("upgrade", plan, heading)),
        downgrade="".join(_function("downgrade", back, heading)),
    )
    return text + tail * patient


def mark(verb: str, name: str, plan: Plan) -> str:
    """The line that tells of which steps a file consists: the same for the same steps."""
    content = "\0".join(action.sql for step in plan.steps for action in step.up)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return f"{MARK}{verb} {_one_line(name)} {digest}"


def _title(heading: Heading) -> str:
    what = {"add": "Let Duerow claim from", "remove": "Take out what Duerow added to"}
    whom = re.sub(r"[^\w .-]", "_", _one_line(heading.name))
    return f"{what[heading.verb]} {whom}"


def _function(name: str, plan: Plan, heading: Heading) -> Iterator[str]:
    yield f"def {name}() -> None:\n"
    if any(action.each for step in plan.steps for action in step.up):
        yield _OFFLINE.format(instead=_quoted(f"{_one_line(heading.command)} --sql"))
    yield "    with op.get_context().autocommit_block():\n"
    for setting in SETTINGS:
        yield f'        op.execute("set {setting} = 0")\n'
    for step in plan.steps:
        yield f"\n        # {_one_line(step.title)}\n"
        yield from (_call(action, plan.patiently) for action in step.up)
    yield "\n"
    for setting in SETTINGS:
        yield f'        op.execute("reset {setting}")\n'


def _call(action: Action, patiently: str) -> str:
    said = _literal(_escaped(action.sql))
    if action.each:  # run as it stands, without the backslashes that op.execute takes out
        escapes = _escaped(patiently) != patiently
        change = 'change.replace("\\\\:", ":")' if escapes else "change"
        return _EACH.format(query=said, change=change)
    return f"        {'patiently' if action.patient else 'op.execute'}({said})\n"


def _down(parents: tuple[str, ...]) -> str:
    match parents:
        case ():
            return "None"
        case (only,):
            return _quoted(only)
    return f"({', '.join(map(_quoted, parents))})"


def _escaped(sql: str) -> str:
    return _PARAMETER.sub(r"\\:", sql)


def _literal(sql: str) -> str:
    """As it reads best: a raw string over several lines, where its content lets it."""
    if "\n" not in sql:
        return _quoted(sql) if '"' not in sql else _raw(sql)
    return _raw(sql)


def _raw(sql: str) -> str:
    if '"""' in sql or "\r" in sql or sql.endswith("\\"):
        return repr(sql)
    space = " " if sql.endswith('"') else ""
    return f'r"""{sql}{space}"""'


def _quoted(text: str) -> str:
    plain = text.isprintable() and not set(text) & {'"', "\\"}
    return f'"{text}"' if plain else repr(text)


def _one_line(text: str) -> str:
    return " ".join(text.split())
