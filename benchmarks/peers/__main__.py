"""A peer under the contract, in its own environment: python -m benchmarks.peers NAME COMMAND ..."""

from __future__ import annotations

import importlib
import sys

from benchmarks.peers import contract


def main() -> None:
    name, *argv = sys.argv[1:]
    contract.main(importlib.import_module(f"benchmarks.peers.{name}").Peer(), argv)


if __name__ == "__main__":
    main()
