"""The SQL of a revision, frozen in files beside it.

0007_sources.py         what it is and what it follows
0007_sources.sql        the way up
0007_sources.down.sql   the way down
"""

from __future__ import annotations

from pathlib import Path

from alembic import op


def up(revision_file: str) -> None:
    """Runs the way up of the revision whose `__file__` this is, or writes it out offline."""
    _run(Path(revision_file).with_suffix(".sql"))


def down(revision_file: str) -> None:
    """Runs the way down, likewise."""
    _run(Path(revision_file).with_suffix(".down.sql"))


def _run(path: Path) -> None:
    sql = path.read_bytes().decode()
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output(sql)
        return
    assert context.connection is not None
    # Without parameters the text goes to the server as it stands: many statements, and neither
    # a % nor a : in it means anything to a driver.
    context.connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
