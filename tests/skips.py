"""In CI a test that is skipped has failed: what it needs has to be installed.

Hooks of pytest, used by conftest.py. Elsewhere a skip stays one, so that a machine without
pgbouncer, say, can still run the rest.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

R = TypeVar("R", pytest.TestReport, pytest.CollectReport)

ALLOWED: tuple[str, ...] = ()
"""Beginnings of node ids that may be skipped in CI, each with its reason beside it."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _refused((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _refused((yield))


def _refused(report: R) -> R:
    """The report, failed if it tells of a skip. An expected failure (xfail) is none."""
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if os.environ.get("CI") == "true" and skipped and not report.nodeid.startswith(ALLOWED):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped in CI: {_reason(report.longrepr)}"
    return report


def _reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
