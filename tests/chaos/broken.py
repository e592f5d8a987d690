"""Breaks the core on purpose, in a copy, to see that the checker notices.

CHAOS_SQL names a directory that is read in the place of sql/.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import worker.statements
from worker.assets import sql_directory

ENVIRONMENT = "CHAOS_SQL"


def broken_sql(directory: Path, statement: str, changes: Mapping[str, str]) -> Path:
    """A copy of sql/ with other words in one statement; where the copy is."""
    copy = directory / "sql"
    shutil.copytree(sql_directory(), copy)
    file = copy / f"{statement}.sql"
    text = file.read_text()
    for good, bad in changes.items():
        assert good in text, f"{statement}.sql no longer says {good!r}"
        text = text.replace(good, bad)
    file.write_text(text)
    return copy


def use_broken_sql() -> None:
    """Called in each worker process."""
    if directory := os.environ.get(ENVIRONMENT):
        worker.statements.sql_directory = lambda: Path(directory)
