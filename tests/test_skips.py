"""What a skip comes to, in CI and elsewhere: pytest itself is run on files that skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUICKLY = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
SKIPS = {
    "in the test": "def test_it():\n    pytest.skip('no luck')\n",
    "by a mark": "@pytest.mark.skip(reason='no luck')\ndef test_it():\n    pass\n",
    "in a fixture": (
        "@pytest.fixture\ndef need():\n    pytest.skip('no luck')\n\ndef test_it(need):\n    pass\n"
    ),
    "the whole module": "pytest.skip('no luck', allow_module_level=True)\n",
}


@pytest.mark.parametrize("how", SKIPS)
def test_in_ci_a_skip_is_a_failure(tmp_path: Path, how: str) -> None:
    code, told = _run(tmp_path, SKIPS[how], CI="true")
    assert code in (1, 2), told
    assert "was skipped in CI: " in told
    assert "no luck" in told


def test_elsewhere_a_skip_is_a_skip(tmp_path: Path) -> None:
    code, told = _run(tmp_path, SKIPS["in the test"], CI="")
    assert code == 0, told
    assert "1 skipped" in told


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    body = "@pytest.mark.xfail(strict=True)\ndef test_it():\n    raise ValueError\n"
    code, told = _run(tmp_path, body, CI="true")
    assert code == 0, told
    assert "1 xfailed" in told


def _run(place: Path, body: str, **environ: str) -> tuple[int, str]:
    (place / "test_it.py").write_text(f"import pytest\n\n\n{body}", "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.skips", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [*command, "-q", "test_it.py"],
        cwd=place,
        env={**os.environ, **QUICKLY, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr
