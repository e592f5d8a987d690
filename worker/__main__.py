"""`python -m worker` is `worker`."""

from __future__ import annotations

from worker.cli import main

main()
