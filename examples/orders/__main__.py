"""The example: `python -m examples.orders`. Its figures are explained in README.md."""

from __future__ import annotations

from examples.common.stage import program
from examples.orders.play import play

SCALE = 0.01  # real seconds for one of the scenario's

if __name__ == "__main__":
    program("examples.orders", __doc__, SCALE, play)
