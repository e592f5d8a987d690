"""The fault runs on a user's own table with a UUID key, whose user changes rows meanwhile."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.chaos import freezes, kills, locks, restarts, stops
from tests.chaos.adopted import Adopted, AdoptedInSession
from tests.chaos.place import Place
from tests.postgres import Cluster
from worker.migrate import upgrade

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    ("run", "workload"),
    [
        (kills, Adopted),
        (freezes, Adopted),
        (stops, Adopted),
        (locks, Adopted),
        (kills, AdoptedInSession),
    ],
    ids=["kills", "freezes", "stops", "locks", "kills in a session"],
)
def test_faults(db_url: str, tmp_path: Path, run: ModuleType, workload: type[Adopted]) -> None:
    figures = run.run(Place(db_url, tmp_path, workload=workload), run.SHORT)
    assert figures.kept, str(figures)


def test_restarts(postgres_server: Cluster, tmp_path: Path) -> None:
    upgrade(postgres_server.url)
    place = Place(postgres_server.url, tmp_path, postgres_server, AdoptedInSession)
    figures = restarts.run(place, restarts.SHORT)
    assert figures.kept, str(figures)
