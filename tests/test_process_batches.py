"""A batch in which one row ends the process: that row is dead, the others finish."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.facts import eventually

pytestmark = pytest.mark.process

APP = """
import os
from dataclasses import dataclass

from worker import App, Batch

app = App()


@dataclass
class Parcel:
    number: int


@app.batch("track", size=10)
async def track(parcels: Batch[Parcel]) -> None:
    with open("calls", "a") as calls:
        print(*sorted(parcel.data.number for parcel in parcels), file=calls, flush=True)
    for parcel in parcels:
        if parcel.data.number == 3:
            os._exit(1)
        parcel.done()
"""


def test_a_row_that_ends_its_process_is_found_out(
    db_url: str, pg: psycopg.Connection[Any], tmp_path: Path
) -> None:
    (tmp_path / "parcels.py").write_text(APP)
    pg.execute(
        "insert into worker.jobs (kind, args)"
        " select 'track', jsonb_build_object('number', i) from generate_series(1, 5) i"
    )
    deadline = time.monotonic() + 120
    while not _all_finished(pg):
        assert time.monotonic() < deadline
        _run_until_it_ends(tmp_path, db_url, pg)
    rows = pg.execute("select args->>'number', state, crashes from worker.all_jobs order by 1")
    assert rows.fetchall() == [
        ("1", "done", 2),
        ("2", "done", 2),
        ("3", "dead", 3),
        ("4", "done", 2),
        ("5", "done", 2),
    ]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[:2] == ["1 2 3 4 5"] * 2
    assert sorted(calls[2:]) == ["1", "2", "3", "4", "5"]


def _run_until_it_ends(directory: Path, url: str, pg: psycopg.Connection[Any]) -> None:
    """A worker; stopped when everything is finished."""
    command = [sys.executable, "-m", "worker", "run", "--app", "parcels:app", "--lease", "4s"]
    environment = {**os.environ, "DATABASE_URL": url, "DUEROW_POLL_MAX": "300ms"}
    with subprocess.Popen(
        command, cwd=directory, env=environment, stderr=subprocess.DEVNULL
    ) as process:
        try:
            eventually(lambda: process.poll() is not None or _all_finished(pg), within=60)
        finally:
            process.terminate()


def _all_finished(pg: psycopg.Connection[Any]) -> bool:
    found = pg.execute("select count(*) = 5 from worker.jobs_finished").fetchone()
    return found is not None and bool(found[0])
