"""The command line as tests use it: a verb called here, or a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.facts import eventually
from worker.cli import invoke

PROGRAM = (sys.executable, "-P", "-m", "worker")
REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, str]]:
        """What was given as TSV."""
        names, *lines = (line.split("\t") for line in self.out.splitlines())
        return [dict(zip(names, line, strict=True)) for line in lines]

    @property
    def record(self) -> dict[str, str]:
        """What was given as a line for each value."""
        return dict(line.split("\t", 1) for line in self.out.splitlines())

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class CLI:
    """Calls verbs in this process, on one database."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._url = url
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Result:
        self._capsys.readouterr()
        code = invoke([*arguments, "--database-url", self._url])
        out, err = self._capsys.readouterr()
        return Result(code, out, err)


def run(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = ""
) -> Result:
    """A verb in a process of its own, until it ends."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        cwd=cwd,
        env=environment(env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without what would tell a worker where to go."""
    ours = ("DUEROW_", "PG", "RAILWAY_", "DATABASE_URL", "DYNO", "NO_COLOR", "FORCE_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, **(more or {})}


class Process:
    """`worker run` or the like, under way, its log going to a file."""

    def __init__(self, popen: subprocess.Popen[str], log: Path) -> None:
        self.popen = popen
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The JSON log lines of that event."""
        whole = self.log.split("\n")[:-1]  # the last may be half written
        found = (json.loads(line) for line in whole if line.startswith("{"))
        return [line for line in found if line["event"] == event]

    def seen(self, event: str) -> dict[str, Any]:
        """The first log line of that event, once it is there."""
        found = eventually(lambda: self.lines(event) or self._dead(event), within=30)
        return found[0]

    def _dead(self, event: str) -> list[dict[str, Any]]:
        code = self.popen.poll()
        assert code is None or self.lines(event), f"ended with {code}:\n{self.log}"
        return []

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self, within: float = 30) -> int:
        return self.popen.wait(within)


@contextmanager
def started(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: Any = None
) -> Iterator[Process]:
    """A verb in a process of its own, killed at the end of the block if it still runs."""
    log = cwd / "stderr.log"
    with log.open("w") as stderr:
        popen = subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        yield Process(popen, log)
    finally:
        popen.kill()
        popen.communicate()
