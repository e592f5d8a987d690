"""A worker frozen past its lease comes back as another, and its late results are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import freezes
from tests.chaos.place import Place

pytestmark = pytest.mark.process


def test_freezes(db_url: str, tmp_path: Path) -> None:
    figures = freezes.run(Place(db_url, tmp_path), freezes.SHORT)
    assert figures.kept, str(figures)
