"""The example: `python -m examples.accounts`. Its figures are explained in README.md."""

from __future__ import annotations

from examples.accounts.play import play
from examples.common.stage import program

SCALE = 0.05  # real seconds for one of the scenario's

if __name__ == "__main__":
    program("examples.accounts", __doc__, SCALE, play)
