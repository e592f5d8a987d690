"""A worker process that drains a database, held back until it is told to begin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any


class Drainer:
    """`python -m benchmarks.noop`, which has started and imported everything, and waits.

    options: of benchmarks.noop. environment: beside this process's own.
    """

    def __init__(
        self,
        url: str,
        slots: int,
        options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        told = json.dumps({**(options or {}), "wait": True})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.noop", url, str(slots), told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def __enter__(self) -> Drainer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", f"the worker said {line!r} and ended"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def ended(self) -> dict[str, Any]:
        """Waits for its end; what it has measured."""
        out, _ = self._process.communicate()
        assert self._process.returncode == 0, f"the worker ended with {self._process.returncode}"
        found: dict[str, Any] = json.loads(out)
        return found
