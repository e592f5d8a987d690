"""The pages of documentation as what a reader would do with them: blocks to type, save and run.

```console      lines after `$ ` are typed; the lines below one are what it shows, in order,
                `...` for whatever stands there. `worker run` is stopped once it has shown them.
```python       a module, saved under the name in its first line, `# app.py`
```sql          statements, each of which must run
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.facts import eventually
from tests.postgres import local_binaries

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("*.md", "docs/**/*.md", "examples/**/*.md")
PAGES = sorted(page for place in PLACES for page in ROOT.glob(place))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITHIN = 120.0  # seconds, for one command


@dataclass(frozen=True, slots=True)
class Block:
    """language: after the fence; line: where the text begins in its page."""

    language: str
    text: str
    line: int
    page: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name that a module is to be saved under, if it says one."""
        found = re.match(r"# ([\w./]+\.\w+)\n", self.text)
        return found[1] if found else None


@dataclass(slots=True)
class Command:
    """What is typed, and the lines that it is said to show."""

    typed: str
    shown: list[str] = field(default_factory=list)


def blocks(page: str, *languages: str) -> list[Block]:
    """The fenced blocks of a page, in order: all, or those of these languages."""
    text = (ROOT / page).read_text("utf-8")
    found = [
        Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1, page)
        for match in FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def commands(block: Block) -> list[Command]:
    found: list[Command] = []
    for line in block.text.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:]))
        elif line.strip():
            assert found, f"{block}: shown before anything is typed: {line}"
            found[-1].shown.append(line)
    return found


class Shell:
    """Types commands in a directory, with the installed `worker` and a psql on the PATH, and
    compares what they show with what the page says."""

    def __init__(self, directory: Path, **environ: str) -> None:
        self.directory = directory
        scripts = Path(sys.executable).parent
        plain = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DUEROW_", "PG")) and name not in ("DATABASE_URL", "CI")
        }
        path = os.pathsep.join((str(scripts), plain["PATH"], str(local_binaries().directory)))
        # As on a terminal, but for the colours.
        self.environ = {**plain, "PATH": path, "DUEROW_LOG_FORMAT": "console", **environ}

    def save(self, block: Block) -> None:
        assert block.file, f"{block}: the first line of a module names its file"
        path = self.directory / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")

    def type(self, command: Command) -> str:
        """Everything that it showed."""
        if command.typed.startswith("worker run"):
            return self._until_shown(command)
        ended = subprocess.run(
            ["bash", "-c", command.typed],
            cwd=self.directory,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        assert ended.returncode == 0, f"$ {command.typed}\n{ended.stdout}"
        missing = _missing(command.shown, ended.stdout)
        assert missing is None, f"$ {command.typed}\n{ended.stdout}\ndoes not show: {missing}"
        return ended.stdout

    def _until_shown(self, command: Command) -> str:
        """Of what runs until it is stopped; it has to end well."""
        log = self.directory / ".shown"
        with log.open("w") as out:
            process = self._start(command.typed, out)
            try:
                eventually(
                    lambda: (
                        process.poll() is not None
                        or _missing(command.shown, log.read_text("utf-8")) is None
                    ),
                    WITHIN,
                )
                assert process.poll() is None, log.read_text("utf-8")
                process.send_signal(signal.SIGTERM)
                assert process.wait(WITHIN) == 0, log.read_text("utf-8")
            finally:
                process.kill()
                process.wait()
        return log.read_text("utf-8")

    def _start(self, typed: str, out: IO[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", f"exec {typed}"],
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _missing(expected: list[str], text: str) -> str | None:
    """The first of the expected lines that does not stand in `text` after the one before it."""
    lines = iter([" ".join(line.split()) for line in text.splitlines()])
    for line in expected:
        parts = [re.escape(" ".join(part.split())) for part in line.split("...")]
        pattern = re.compile(r"\s*.*?\s*".join(parts))
        if line.strip() != "..." and not any(pattern.fullmatch(one) for one in lines):
            return line
    return None
