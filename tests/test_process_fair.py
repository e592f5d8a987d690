"""Tenants take turns across a fleet: three processes, none of which knows of the others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.cli import PROGRAM, environment
from tests.facts import eventually

pytestmark = pytest.mark.process

APP = """
import asyncio
from pathlib import Path

from worker import App, Fair

app = App()

@app.handler("track", fair=Fair(per_tenant=5))
async def track(i: int) -> None:
    while not Path("all are there").exists():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.003)
"""
LARGE, SMALL, TENANTS = 3000, 20, 15


def test_processes(db_url: str, pg: psycopg.Connection, tmp_path: Path) -> None:
    """Fifteen tenants of 20 rows each fell due after one of 3,000, and are through when it has had
    about as many as they."""
    (tmp_path / "shop.py").write_text(APP)
    pg.execute(
        "insert into worker.jobs (kind, args, tenant, due_at)"
        " select 'track', jsonb_build_object('i', i), case when i <= %(large)s then 'large'"
        " else 'small ' || i %% %(tenants)s end, now() - make_interval(secs => 10000 - i)"
        " from generate_series(1, %(large)s + %(small)s * %(tenants)s) i",
        {"large": LARGE, "small": SMALL, "tenants": TENANTS},
    )
    command = [*PROGRAM, "drain", "--app", "shop:app", "--concurrency", "4"]
    variables = {
        **environment(),
        "DUEROW_DATABASE_URL": db_url,
        "PYTHONPATH": os.pathsep.join(
            (str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")]))
        ),
    }
    drains = [
        subprocess.Popen(command, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    at_work = "select count(distinct owner) from worker.jobs"
    try:
        eventually(lambda: pg.execute(at_work).fetchone() == (3,), within=60)
    finally:
        (tmp_path / "all are there").touch()
    for drain in drains:
        _, said = drain.communicate(timeout=120)
        assert drain.returncode == 0, said
    assert pg.execute(
        "select count(*), count(distinct id) from worker.jobs_finished"
    ).fetchone() == (
        LARGE + SMALL * TENANTS,
        LARGE + SMALL * TENANTS,
    )
    ran = pg.execute(
        "select tenant, worker from worker.jobs_finished order by claimed_at, id"
    ).fetchall()
    last = max(place for place, (tenant, _) in enumerate(ran) if tenant != "large")
    begun = min(place for place, (tenant, _) in enumerate(ran) if tenant != "large")
    assert begun < 100, "the large one does not go first"
    assert last < 3 * SMALL * TENANTS, "nor do they wait for its rows"
    assert len({worker for _, worker in ran}) == 3
