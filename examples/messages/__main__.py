"""The example: `python -m examples.messages`. Its figures are explained in README.md."""

from __future__ import annotations

from examples.common.stage import program
from examples.messages.play import play

SCALE = 0.1  # real seconds for one of the scenario's

if __name__ == "__main__":
    program("examples.messages", __doc__, SCALE, play)
