"""How the demo's processes begin and end: with what they are started, and that none outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.errors import DuerowError
from worker.url import DatabaseURL

PATIENCE = 3.0  # seconds that a process has to end before it is killed


@dataclass(eq=False)
class Logged:
    """A process whose words go to a file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


def begin(
    command: Sequence[str], log: Path, cwd: Path, env: dict[str, str]
) -> subprocess.Popen[bytes]:
    """In a group of its own: Ctrl-C reaches who began it alone, who then ends it by its pid."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=env,
            process_group=0,
        )


def begin_server(
    name: str, command: Sequence[str], cwd: Path | None = None, env: dict[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], str]:
    """A server that prints its URL first and ends with its stdin, as `Loopback.serve` does; and
    that URL. Raises DuerowError for one that ends without a word."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=cwd,
        env=env,
        process_group=0,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        if not url:
            raise DuerowError(f"{name} did not start", hint="run it again")
    except BaseException:
        end([process])
        raise
    return process, url


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """All of them, by force where it must be."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def worker_command() -> list[str]:
    """The program as it was installed beside this Python; or the same without it."""
    installed = Path(sys.executable).with_name("worker")
    if installed.exists():
        return [str(installed)]
    return [sys.executable, "-m", "worker"]


def environment(url: DatabaseURL) -> dict[str, str]:
    """Ours, without what would lead a worker elsewhere; the URL is not for `ps` to show."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("DUEROW_", "PG")) and name != "DATABASE_URL"
    }
    return {**kept, "DUEROW_DATABASE_URL": url.unmasked()}
