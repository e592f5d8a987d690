"""The processes of an example: its API, and workers as `worker run` starts them.

They end with the example, always: each is in a group of its own, so that Ctrl-C reaches the example
alone, which then ends them by their pids.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from examples.common import clock, http
from examples.common.clock import Clock
from worker.demo.processes import (
    PATIENCE,
    Logged,
    begin,
    begin_server,
    end,
    environment,
    worker_command,
)
from worker.errors import DuerowError
from worker.url import DatabaseURL

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
LEASE = 5.0  # seconds; short, so that a killed worker's rows are soon free
GRACE = 10.0
GIVEN_UP = 60.0  # seconds beyond what something should take
LAST_WORDS = 15  # lines of a log

# A worker that is idle looks at its tables as often as this: nobody tells it of new rows.
LOOK = ("--poll-interval", "100ms", "--poll-max", "250ms")


@dataclass(eq=False)
class Member(Logged):
    """A worker process. wanted: False once we have ended it, or let it end by itself."""

    wanted: bool = True

    def said(self) -> list[str]:
        """What its log says, a line each, without the time in front."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return [re.sub(r"^\S+Z \[\w+ *\] ", "", line) for line in lines]


class Crew:
    """api: the module of the API."""

    def __init__(self, url: DatabaseURL, clock: Clock, api: str) -> None:
        self._url = url
        self._clock = clock
        self._api_module = api
        self._mark = secrets.token_hex(3)
        self.members: list[Member] = []

    def __enter__(self) -> Crew:
        self.directory = Path(tempfile.mkdtemp(prefix="duerow-example-"))
        try:
            self._api, self.api_url = begin_server(
                "the example's API",
                [sys.executable, "-m", self._api_module],
                cwd=ROOT,
                env={**os.environ, clock.VARIABLE: str(self._clock.scale)},
            )
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- workers ----------------------------------------------------------------------------------

    def start(self, app: str, *options: str, verb: str = "run", **variables: str) -> Member:
        """One more worker; its name is unique in the database."""
        name = f"{self._mark}-{len(self.members) + 1}"
        log = self.directory / f"{name}.log"
        command = [*worker_command(), verb, "--app", app, "--worker-name", name]
        command += ["--lease", f"{LEASE}s", "--grace", f"{GRACE}s", *options]
        process = begin(command, log, ROOT, {**self._environment(), **variables})
        member = Member(name, process, log, wanted=verb == "run")
        self.members.append(member)
        return member

    def stop(self, member: Member) -> None:
        """SIGTERM, and waits until it has finished what it holds."""
        member.wanted = False
        member.process.terminate()
        member.process.wait(GRACE + PATIENCE)

    def stop_all(self) -> None:
        """All at the same time."""
        alive = [member for member in self.members if member.alive]
        for member in alive:
            member.wanted = False
            member.process.terminate()
        for member in alive:
            member.process.wait(GRACE + PATIENCE)

    def kill(self, member: Member) -> None:
        """SIGKILL: it cannot even say goodbye."""
        member.wanted = False
        member.process.kill()
        member.process.wait()

    def check(self) -> None:
        """Raises DuerowError if a worker has ended that nobody told to."""
        for member in self.members:
            if member.wanted and not member.alive:
                words = "\n".join(member.said()[-LAST_WORDS:])
                raise DuerowError(
                    f"the worker {member.name} has ended with code {member.process.returncode}",
                    why=f"the end of its log:\n{self._url.redact(words)}",
                )

    def until(self, fact: Callable[[], T | None], expected: float = 0.0) -> T:
        """The first value of `fact()` that is true, which should come within `expected` seconds.
        Raises DuerowError if it does not come at all, or a worker has ended."""
        given_up = time.monotonic() + expected + GIVEN_UP
        while not (value := fact()):
            self.check()
            if time.monotonic() > given_up:
                raise DuerowError(
                    f"nothing has come of it for {expected + GIVEN_UP:.0f} s",
                    why="this machine is very busy, or a worker cannot reach the API",
                    hint="run it again",
                )
            time.sleep(0.02)
        return value

    # -- the API ----------------------------------------------------------------------------------

    def faults(self, faults: dict[str, dict[str, Any]]) -> None:
        """What goes wrong at the API from now on: see examples.common.api."""
        http.call("PUT", "/faults", faults, url=self.api_url)

    def requests(self) -> list[dict[str, Any]]:
        """Every request that the API has had."""
        found: list[dict[str, Any]] = http.call("GET", "/requests", url=self.api_url).body
        return found

    # -- all of them ------------------------------------------------------------------------------

    def close(self) -> None:
        processes = [member.process for member in self.members]
        if hasattr(self, "_api"):
            processes.append(self._api)
        end(processes)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        return {
            **environment(self._url),
            "DUEROW_LOG_FORMAT": "console",
            "NO_COLOR": "1",
            clock.VARIABLE: str(self._clock.scale),
            http.VARIABLE: self.api_url,
        }
