"""Whatever its handlers do, a worker told to stop is gone in time and leaves no row claimed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import stops
from tests.chaos.place import Place

pytestmark = pytest.mark.process


def test_stops(db_url: str, tmp_path: Path) -> None:
    figures = stops.run(Place(db_url, tmp_path), stops.SHORT)
    assert figures.kept, str(figures)
