"""Steps as the text of an Alembic revision, which stands by itself: it imports nothing of ours."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from worker.tables.script import SETTINGS
from worker.tables.step import Action, Step, way_back

MARK = "# duerow tables: "
"""How the line starts that tells our revisions from others."""

# What sqlalchemy.text takes for a parameter; a backslash keeps it from that.
_PARAMETER = re.compile(r"(?<![:\w$\\]):(?=[\w$]+(?![:\w$]))")

_OFFLINE = """\
    if op.get_context().as_sql:
        raise RuntimeError({message})
"""
_EACH = """\
        query = {query}
        for (statement,) in op.get_bind().execute(sa.text(query)).all():
            unchanged = {{"no_parameters": True}}
            op.get_bind().exec_driver_sql(statement, execution_options=unchanged)
"""


@dataclass(frozen=True, slots=True)
class Heading:
    """id, parents: of the revision. command: what was typed. verb, name: add or remove, what."""

    id: str
    parents: tuple[str, ...]
    command: str
    verb: str
    name: str
    created: dt.datetime


def revision(heading: Heading, steps: Sequence[Step]) -> str:
    """The file's text."""
    back = way_back(steps)
    each = any(action.each for step in (*steps, *back) for action in step.up)
    imports = "import sqlalchemy as sa\n" * each + "from alembic import op\n"
    return (
        f'"""{_title(heading)}\n\nRevision ID: {heading.id}\n'
        f"Revises: {', '.join(heading.parents)}\nCreate Date: {heading.created}\n"
        '\nEach statement commits by itself. If it stops half way, run it again.\n"""\n\n'
        f"{imports}\n{mark(heading.verb, heading.name, steps)}\n"
        f"# {' '.join(heading.command.split())}\n"
        f"revision = {heading.id!r}\ndown_revision = {_down(heading.parents)}\n"
        "branch_labels = None\ndepends_on = None\n\n\n"
        f"{_function('upgrade', steps, heading)}\n\n{_function('downgrade', back, heading)}"
    )


def mark(verb: str, name: str, steps: Sequence[Step]) -> str:
    """The line that tells of which steps a file consists: the same for the same steps."""
    content = "\0".join(action.sql for step in steps for action in step.up)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return f"{MARK}{verb} {' '.join(name.split())} {digest}"


def _title(heading: Heading) -> str:
    what = {"add": "Let Duerow claim from", "remove": "Take out what Duerow added to"}
    name = re.sub(r"[\\\"]", "'", " ".join(heading.name.split()))
    return f"{what[heading.verb]} {name}"


def _down(parents: tuple[str, ...]) -> str:
    match parents:
        case ():
            return "None"
        case (only,):
            return repr(only)
    return repr(parents)


def _function(name: str, steps: Sequence[Step], heading: Heading) -> str:
    return "".join(_body(name, steps, heading))


def _body(name: str, steps: Iterable[Step], heading: Heading) -> Iterator[str]:
    steps = list(steps)
    yield f"def {name}() -> None:\n"
    if any(action.each for step in steps for action in step.up):
        yield _OFFLINE.format(message=repr(_offline_message(heading)))
    yield "    with op.get_context().autocommit_block():\n"
    for setting in SETTINGS:
        yield f'        op.execute("set {setting} = 0")\n'
    for step in steps:
        yield f"\n        # {' '.join(step.title.split())}\n"
        yield from map(_call, step.up)
    yield "\n"
    for setting in SETTINGS:
        yield f'        op.execute("reset {setting}")\n'


def _offline_message(heading: Heading) -> str:
    return (
        "the statements depend on the partitions that the database has; print them with: "
        f"{heading.command} --sql"
    )


def _call(action: Action) -> str:
    if action.each:
        return _EACH.format(query=_literal(_escaped(action.sql)))
    return f"        op.execute({_literal(_escaped(action.sql))})\n"


def _escaped(sql: str) -> str:
    return _PARAMETER.sub(r"\\:", sql)


def _literal(sql: str) -> str:
    """As it reads best: a raw string over several lines, where its content lets it."""
    if "\n" not in sql and '"' not in sql and "\\" not in sql:
        return f'"{sql}"'
    if '"""' in sql or "\r" in sql or sql.endswith("\\"):
        return repr(sql)
    space = " " if sql.endswith('"') else ""
    return f'r"""{sql}{space}"""'
