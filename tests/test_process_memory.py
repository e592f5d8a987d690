"""A worker stays small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import memory
from tests.chaos.place import Place

pytestmark = pytest.mark.process


def test_memory(db_url: str, tmp_path: Path) -> None:
    figures = memory.run(Place(db_url, tmp_path), memory.SHORT)
    assert figures.kept, str(figures)
