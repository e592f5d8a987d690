"""Rows that no worker here can run do not stand in the way of those that one can."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import strangers
from tests.chaos.place import Place

pytestmark = pytest.mark.process


def test_strangers(db_url: str, tmp_path: Path) -> None:
    figures = strangers.run(Place(db_url, tmp_path), strangers.SHORT)
    assert figures.kept, str(figures)
