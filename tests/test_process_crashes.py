"""A row whose handler ends its process is dead after three crashes; its neighbours finish."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import crashes
from tests.chaos.place import Place

pytestmark = pytest.mark.process


def test_crashes(db_url: str, tmp_path: Path) -> None:
    figures = crashes.run(Place(db_url, tmp_path), crashes.SHORT)
    assert figures.kept, str(figures)
