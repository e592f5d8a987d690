"""What a worker process loads while it works: nearly all of its memory, and half of the time until
its first row, are its imports."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.chaos.fleet import ROOT, WORKER
from tests.facts import eventually

pytestmark = pytest.mark.process

# Its handler tells what is loaded in a process that has claimed and beaten. It waits for a file.
APP = """
import sys, time
from pathlib import Path
{imports}
from worker import App

app = App()

@app.handler
def tell({takes}) -> list[str]:
    while not Path("beaten").exists():
        time.sleep(0.01)
    return sorted(sys.modules)
"""

# Packages, and modules of the standard library, that a worker of jobs has no use for.
NEEDLESS = {
    "alembic", "cronsim", "ctypes", "greenlet", "http", "mako",
    "multiprocessing", "psycopg", "psycopg_binary", "psycopg_pool", "rich",
    "sqlalchemy", "sqlite3", "unittest", "xml",
}  # fmt: skip
BEATING = (
    "select from pg_stat_activity"
    " where application_name = 'duerow heartbeat' and datname = current_database()"
)


def loaded(place: Path, url: str, *, imports: str = "", takes: str = "") -> set[str]:
    """The top-level names of what such a worker has loaded."""
    (place / "teller.py").write_text(APP.format(imports=imports, takes=takes))
    environment = {n: v for n, v in os.environ.items() if not n.startswith("DUEROW_")}
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("insert into worker.jobs (kind, args) values ('tell', '{}')")
        drain = subprocess.Popen(
            [WORKER, "drain", "--app", "teller:app", "--lease", "6s"],
            cwd=place,
            env=environment | {"DUEROW_DATABASE_URL": url, "PYTHONPATH": f"{place}:{ROOT}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            eventually(lambda: db.execute(BEATING).rowcount or drain.poll() is not None, 60)
            (place / "beaten").touch()
            _, told = drain.communicate(timeout=60)
        finally:
            drain.kill()
        assert drain.returncode == 0, told.decode()
        [(names,)] = db.execute("select result from worker.jobs_finished").fetchall()
    every: list[str] = json.loads(names) if isinstance(names, str) else names
    return {name.partition(".")[0] for name in every}


def test_a_worker_loads_nothing_that_it_does_not_need(db_url: str, tmp_path: Path) -> None:
    found = loaded(tmp_path, db_url)
    assert {"asyncpg", "pydantic", "structlog"} <= found
    assert found & NEEDLESS == set()


@pytest.mark.parametrize(
    ("imports", "takes", "expected"),
    [
        ("import psycopg", "session: psycopg.Connection", {"psycopg", "psycopg_pool"}),
        ("from sqlalchemy.orm import Session", "session: Session", {"sqlalchemy", "psycopg"}),
    ],
)
def test_what_a_handler_asks_for_is_loaded(
    db_url: str, tmp_path: Path, imports: str, takes: str, expected: set[str]
) -> None:
    found: Any = loaded(tmp_path, db_url, imports=imports, takes=takes)
    assert found & NEEDLESS >= expected
