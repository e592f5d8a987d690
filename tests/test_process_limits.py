"""Limits that several processes keep together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import breakers, rates, shares
from tests.chaos.place import Place

pytestmark = pytest.mark.process


def test_rates(db_url: str, tmp_path: Path) -> None:
    figures = rates.run(Place(db_url, tmp_path), rates.SHORT)
    assert figures.kept, str(figures)


def test_shares(db_url: str, tmp_path: Path) -> None:
    figures = shares.run(Place(db_url, tmp_path), shares.SHORT)
    assert figures.kept, str(figures)


def test_breakers(db_url: str, tmp_path: Path) -> None:
    figures = breakers.run(Place(db_url, tmp_path), breakers.SHORT)
    assert figures.kept, str(figures)
