"""Whichever of its connections is ended, a worker comes back over it, and loses no row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import terminations
from tests.chaos.place import Place

pytestmark = pytest.mark.process


def test_terminations(db_url: str, tmp_path: Path) -> None:
    figures = terminations.run(Place(db_url, tmp_path), terminations.SHORT)
    assert figures.kept, str(figures)
