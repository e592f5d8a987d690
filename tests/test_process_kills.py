"""No row is lost, no stale result is accepted, when workers are killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import kills
from tests.chaos.place import Place

pytestmark = pytest.mark.process


def test_kills(db_url: str, tmp_path: Path) -> None:
    figures = kills.run(Place(db_url, tmp_path), kills.SHORT)
    assert figures.kept, str(figures)
