"""Signals may come twice, to the whole group, from a keyboard, or before the worker has started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import signals
from tests.chaos.place import Place

pytestmark = pytest.mark.process


def test_signals(db_url: str, tmp_path: Path) -> None:
    figures = signals.run(Place(db_url, tmp_path), signals.SHORT)
    assert figures.kept, str(figures)
