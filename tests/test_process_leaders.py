"""A tick a second is neither doubled nor missed when the replica that decides ticks changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import leaders
from tests.chaos.place import Place

pytestmark = pytest.mark.process


def test_leaders(db_url: str, tmp_path: Path) -> None:
    figures = leaders.run(Place(db_url, tmp_path), leaders.SHORT)
    assert figures.kept, str(figures)
