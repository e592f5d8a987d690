"""The examples as a user plays them."""

from __future__ import annotations

import subprocess
import sys

from tests.cli import REPOSITORY, environment


def played(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`python -m examples.NAME`, until it ends."""
    return subprocess.run(
        [sys.executable, "-m", f"examples.{name}", *options],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
