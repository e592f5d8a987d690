"""The virtual environments that peers run in: outside the project, made once, used again.

One for each Python version that is asked for, in `directory`; each holds requirements.txt. It is
made anew when that file has changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import platformdirs

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
NEWEST = 20  # minor version of Python that is looked for


class NoEnvironment(Exception):
    """A peer's environment cannot be made here."""


class Environment(NamedTuple):
    python: Path
    version: str  # of Python


def default_directory() -> Path:
    return platformdirs.user_cache_path("duerow") / "benchmarks"


def environment(directory: Path, oldest: tuple[int, int]) -> Environment:
    """One whose Python is this one, or the newest here if this is older than `oldest`.

    Raises NoEnvironment.
    """
    interpreter, version = _interpreter(oldest)
    home = directory / f"python{version}"
    python, mark = home / "bin" / "python", home / "installed"
    wanted = REQUIREMENTS.read_text()
    if not (python.exists() and mark.exists() and mark.read_text() == wanted):
        print(f"installing the peers in {home}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        for command in _making(interpreter, home, python):
            _run(command)
        mark.write_text(wanted)
    return Environment(python, version)


def _interpreter(oldest: tuple[int, int]) -> tuple[str, str]:
    """Its path, and its version up to the patch."""
    for found in _candidates(oldest):
        version = _version(found)
        if version is not None and _numbers(version) >= oldest:
            return found, version
    raise NoEnvironment(
        f"it needs Python {oldest[0]}.{oldest[1]}, and there is none on the path or among pyenv's"
    )


def _candidates(oldest: tuple[int, int]) -> Iterator[str]:
    yield sys.executable
    for minor in range(NEWEST, oldest[1] - 1, -1):
        if found := shutil.which(f"python3.{minor}"):
            yield found
    versions = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    homes = [(_numbers(home.name), home) for home in versions.glob("3.*")]
    for numbers, home in sorted(homes, reverse=True):
        if numbers >= oldest:
            yield str(home / "bin" / "python")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def _version(interpreter: str) -> str | None:
    """None for what does not run: pyenv puts commands of versions on the path that it refuses."""
    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    done = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _making(interpreter: str, home: Path, python: Path) -> list[list[str]]:
    if uv := _uv():
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
        make = [uv, "venv", "--quiet", "--python", interpreter, str(home)]
    else:
        install = [str(python), "-m", "pip", "install", "--quiet"]
        make = [interpreter, "-m", "venv", str(home)]
    return [make, [*install, "-r", str(REQUIREMENTS)]]


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoEnvironment(f"{' '.join(command[:4])} ... failed:\n{done.stderr.strip()}")


def pinned(package: str) -> str:
    """The version that requirements.txt asks for."""
    found = re.search(rf"^{package}==([\w.]+)", REQUIREMENTS.read_text(), re.MULTILINE)
    assert found is not None, f"{package} is not in {REQUIREMENTS}"
    return found[1]
