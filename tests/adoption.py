"""What the tests of adopted tables share: the verbs, psql, and a user's own Alembic project."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from alembic import command
from alembic.config import Config

from tests.postgres import local_binaries
from worker.cli import main
from worker.url import DatabaseURL

ENV = """
import os
from alembic import context
from sqlalchemy import create_engine, pool

url = context.config.attributes.get("url") or os.environ["PROJECT_URL"]
if context.is_offline_mode():
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(url, poolclass=pool.NullPool).connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Of --json."""
        return [json.loads(line) for line in self.out.splitlines()]


def tables(url: str, *words: str) -> Answer:
    """`worker tables ...` on that database."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["tables", *words, "--database-url", url])
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Answer(code, out.getvalue(), err.getvalue())


def psql(url: str, script: str) -> subprocess.CompletedProcess[str]:
    """A script run by psql, as by a user."""
    program = local_binaries().directory / "psql"
    command = [str(program), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url]
    return subprocess.run(command, input=script, capture_output=True, text=True, check=False)


def adopt(url: str, *words: str) -> Answer:
    """`worker tables add ... --sql`, run by psql, which must find nothing to complain of."""
    answer = tables(url, "add", *words, "--sql")
    assert answer.code == 0, answer.err
    done = psql(url, answer.out)
    assert done.returncode == 0, done.stderr
    return answer


def as_role(url: str, role: str, password: str) -> str:
    """The same database, as another role."""
    parts = urlsplit(url)
    _, _, server = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{role}:{password}@{server}"))


def columns(pg: psycopg.Connection[Any], table: str) -> set[str]:
    """Of our own, those that a table has. table: as SQL writes it."""
    rows = pg.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and not attisdropped"
        " and attname like 'duerow\\_%%'",
        [table],
    )
    return {name for (name,) in rows}


def index_is_valid(pg: psycopg.Connection[Any], index: str) -> bool | None:
    """None if there is no such index. index: as SQL writes it."""
    row = pg.execute(
        "select indisvalid from pg_index where indexrelid = to_regclass(%s)", [index]
    ).fetchone()
    return None if row is None else bool(row[0])


class Project:
    """An Alembic project as `alembic init` makes it, on a database."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.versions = home / "alembic" / "versions"
        self.url = DatabaseURL.parse(url).sqlalchemy_url("psycopg")
        with contextlib.redirect_stdout(io.StringIO()):
            config = Config(str(home / "alembic.ini"), stdout=io.StringIO())
            command.init(config, str(home / "alembic"))
        ini = home / "alembic.ini"
        ini.write_text(ini.read_text().replace(str(home) + "/", ""))  # as if made in there
        (home / "alembic" / "env.py").write_text(ENV)

    def revise(self, name: str, up: str = "", down: str = "", *, after: str | None = None) -> None:
        """A revision of the user's own, with these statements."""
        (self.versions / f"{name}.py").write_text(
            f"from alembic import op\n\nrevision = {name!r}\ndown_revision = {after!r}\n"
            f"\n\ndef upgrade():\n    op.execute({up!r})\n"
            f"\n\ndef downgrade():\n    op.execute({down!r})\n"
        )

    def alembic(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "alembic", *words],
            cwd=self.home,
            env={**os.environ, "PROJECT_URL": self.url},
            capture_output=True,
            text=True,
            check=False,
        )

    def upgrade(self, to: str = "head") -> None:
        command.upgrade(self._config(), to)

    def downgrade(self, to: str) -> None:
        command.downgrade(self._config(), to)

    def _config(self) -> Config:
        """Alembic in this process: its own program takes a second to start."""
        config = Config(str(self.home / "alembic.ini"), stdout=io.StringIO())
        config.set_main_option("script_location", str(self.home / "alembic"))
        config.attributes["url"] = self.url
        return config
