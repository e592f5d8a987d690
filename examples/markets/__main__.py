"""The example: `python -m examples.markets`. Its figures are explained in README.md."""

from __future__ import annotations

from examples.common.stage import program
from examples.markets.play import play

SCALE = 0.05  # real seconds for one of the scenario's

if __name__ == "__main__":
    program("examples.markets", __doc__, SCALE, play)
