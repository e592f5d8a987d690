"""The processes of the demo: the payments API and the workers. They end with it, always."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from worker.demo import app
from worker.demo.processes import Logged, begin, begin_server, end, environment, worker_command
from worker.errors import DuerowError
from worker.url import DatabaseURL

LEASE = 5.0  # seconds; short, so that the killed worker's rows are soon free
GRACE = 10.0
SLOTS = 4
LAST_WORDS = 15  # lines of a log


@dataclass(eq=False)
class Member(Logged):
    """A worker process. fate: what we did to it, if anything."""

    fate: str | None = None


class Crew:
    """Starts the processes, each in a group of its own: Ctrl-C reaches the demo alone, which then
    ends them by their pids.

    Workers run as a user's would, with `worker run` in a directory that holds the app.
    """

    def __init__(self, url: DatabaseURL, schema: str, api_options: Sequence[str] = ()) -> None:
        self._url = url
        self._schema = schema
        self._api_options = api_options
        self.members: list[Member] = []

    def __enter__(self) -> Crew:
        self.directory = Path(tempfile.mkdtemp(prefix="duerow-demo-"))
        shutil.copy(Path(app.__file__), self.directory / "payments.py")
        try:
            self._api, self.api_url = begin_server(
                "the demo's payments API",
                [sys.executable, "-m", "worker.demo.api", *self._api_options],
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

    def start(self) -> Member:
        """One more worker."""
        name = f"worker-{len(self.members) + 1}"
        log = self.directory / f"{name}.log"
        command = [
            *worker_command(), "run", "--app", "payments:app", "--queues", self._schema,
            "--concurrency", str(SLOTS), "--lease", f"{LEASE}s", "--grace", f"{GRACE}s",
            "--worker-name", name,
        ]  # fmt: skip
        process = begin(command, log, self.directory, self._environment())
        member = Member(name, process, log)
        self.members.append(member)
        return member

    def kill(self, member: Member) -> None:
        member.fate = "killed with SIGKILL"
        member.process.kill()
        member.process.wait()

    def stop(self, member: Member) -> None:
        member.fate = "stopped with SIGTERM"
        member.process.terminate()

    def check(self) -> None:
        """Raises DuerowError if a worker has ended that nobody told to."""
        for member in self.members:
            if member.fate is None and not member.alive:
                raise DuerowError(
                    f"{member.name} has ended with code {member.process.returncode}",
                    why=f"the end of its log:\n{self._last_words(member)}",
                    hint="worker run --help",
                )

    def ledger(self) -> dict[str, Any]:
        """What the API says of itself."""
        connection = http.client.HTTPConnection(urlsplit(self.api_url).netloc, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/ledger")
            found: dict[str, Any] = json.load(connection.getresponse())
            return found

    def close(self) -> None:
        """Ends every process, and removes the directory. Not to be interrupted."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            processes = [member.process for member in self.members]
            if hasattr(self, "_api"):
                processes.append(self._api)
            end(processes)
            shutil.rmtree(self.directory, ignore_errors=True)
        finally:
            signal.signal(signal.SIGINT, before)

    def _environment(self) -> dict[str, str]:
        return {
            **environment(self._url),
            "DUEROW_LOG_FORMAT": "json",
            "PAYMENTS_URL": self.api_url,
            "DONATIONS": self._schema,
        }

    def _last_words(self, member: Member) -> str:
        lines = member.log.read_text("utf-8", "replace").splitlines()
        return self._url.redact("\n".join(lines[-LAST_WORDS:]))
