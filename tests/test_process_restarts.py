"""No worker exits when Postgres crashes and comes back, and every row becomes final."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import restarts
from tests.chaos.place import Place
from tests.postgres import Cluster
from worker.migrate import upgrade

pytestmark = pytest.mark.process


def test_restarts(postgres_server: Cluster, tmp_path: Path) -> None:
    upgrade(postgres_server.url)
    place = Place(postgres_server.url, tmp_path, postgres_server)
    figures = restarts.run(place, restarts.SHORT)
    assert figures.kept, str(figures)
