"""What tests of migrations share: dumps to compare, and revisions of a version to come."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config

from tests.facts import eventually
from tests.postgres import NoPostgres, free_port
from worker.assets import alembic_directory
from worker.embedded.binaries import every_binaries
from worker.errors import DuerowError
from worker.url import Address, DatabaseURL

ROOT = Path(__file__).parent.parent
DAILY = "*_[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]"
DUMP_OPTIONS = ("--schema-only", "--schema=worker", f"--exclude-table=worker.{DAILY}")
PSQL_OPTIONS = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-")


def program(name: str, url: str) -> Path:
    """`psql` or `pg_dump`, not older than the server."""
    with psycopg.connect(url) as connection:
        server = connection.info.server_version // 10_000
    for binaries in sorted(every_binaries(), key=lambda found: found.major):
        path = binaries.directory / name
        if binaries.major >= server and path.exists():
            return path
    raise NoPostgres(f"no {name} for a server of version {server} on this machine")


def dump(url: str) -> str:
    """Everything Postgres knows of schema `worker` but the daily partitions, as SQL.

    Nothing if there is no such schema.
    """
    if not psql(url, "select to_regnamespace('worker')").strip():
        return ""
    text = subprocess.run(
        [program("pg_dump", url), *DUMP_OPTIONS, DatabaseURL.parse(url).psycopg_conninfo()],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return re.sub(r"^(--.*|\\.*|)\n", "", text, flags=re.M)


def rows(url: str) -> dict[str, list[str]]:
    """Every row of every table, without ids and times, which differ from database to database.
    Those of partitions are told by their table: what days there are differs at midnight."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "select c.relname, string_agg(quote_ident(a.attname), ', ' order by a.attnum)"
            "  from pg_class c join pg_attribute a on a.attrelid = c.oid"
            " where c.relnamespace = 'worker'::regnamespace and c.relkind in ('r', 'p')"
            "   and not c.relispartition and a.attnum > 0 and not a.attisdropped"
            "   and a.atttypid not in ('uuid'::regtype, 'timestamptz'::regtype)"
            " group by 1"
        ).fetchall()
        return {
            table: sorted(map(str, connection.execute(f"select {columns} from worker.{table}")))
            for table, columns in tables
        }


def psql(url: str, script: str) -> str:
    """Runs a script as a database administrator would; its rows as bare text."""
    command = [program("psql", url), *PSQL_OPTIONS, DatabaseURL.parse(url).psycopg_conninfo()]
    try:
        return subprocess.run(
            command, input=script, check=True, capture_output=True, text=True
        ).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise


def told(raised: pytest.ExceptionInfo[DuerowError]) -> tuple[str, str, str]:
    """What, why and the next command."""
    return raised.value.what, raised.value.why, raised.value.hint


@contextlib.contextmanager
def migrators(count: int, url: str) -> Iterator[list[subprocess.Popen[str]]]:
    """So many processes that migrate the database at once, each printing its report."""
    code = "import sys; from worker.migrate import upgrade; print(upgrade(sys.argv[1]))"
    command = [sys.executable, "-c", code, url]
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = subprocess.Popen(
                command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


@contextlib.contextmanager
def pgbouncer(url: str, pool: int) -> Iterator[str]:
    """The URL of a PgBouncer in transaction mode before the server at `url` (host and port)."""
    program = shutil.which(os.environ.get("PGBOUNCER", "pgbouncer"))
    if program is None:
        pytest.skip("no pgbouncer on this machine; PGBOUNCER names one elsewhere")
    server = DatabaseURL.parse(url)
    there = server.addresses[0]
    port = free_port()
    nobody = {"user": "nobody"} if os.geteuid() == 0 else {}  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="duerow-pgbouncer-") as directory:
        Path(directory).chmod(0o755)
        settings = Path(directory) / "pgbouncer.ini"
        settings.write_text(
            "[databases]\n"
            f"* = host={there.host} port={there.port} user={server.user}\n"
            "[pgbouncer]\npool_mode = transaction\nauth_type = any\nunix_socket_dir =\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\ndefault_pool_size = {pool}\n"
        )
        with subprocess.Popen([program, "-q", settings], **nobody) as process:
            pooled = replace(server, addresses=(Address("127.0.0.1", port),)).unmasked()
            try:
                eventually(lambda: _connects(pooled), within=60)
                yield pooled
            finally:
                process.terminate()


class Future:
    """A copy of the project's revisions, to which a test adds those of versions to come."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "alembic"
        shutil.copytree(alembic_directory(), self.directory)

    def add(self, revision: str, up: str, down: str = "") -> None:
        """A revision after the last one, made from the template that people use too."""
        versions = self.directory / "versions"
        last = max(path.name for path in versions.glob("*.py"))[:4]
        text = (self.directory / "script.py.mako").read_text()
        text = text.replace("${message}", "To come").replace("${repr(up_revision)}", repr(revision))
        text = text.replace("${repr(down_revision)}", repr(last))
        (versions / f"{revision}_later.py").write_text(text)
        (versions / f"{revision}_later.sql").write_text(up)
        (versions / f"{revision}_later.down.sql").write_text(down)


class OwnAlembic:
    """A project's own migrations, as `alembic init` has them: version table in `public`."""

    ENV = """\
from alembic import context
from sqlalchemy import create_engine

engine = create_engine(context.config.get_main_option("sqlalchemy.url").replace("%%", "%"))
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
    REVISION = """\
from alembic import op
import sqlalchemy as sa

revision, down_revision = "theirs1", None

def upgrade():
    op.create_table("donations", sa.Column("id", sa.Integer, primary_key=True))

def downgrade():
    op.drop_table("donations")
"""

    def __init__(self, directory: Path, url: str) -> None:
        scripts = directory / "theirs"
        (scripts / "versions").mkdir(parents=True)
        (scripts / "env.py").write_text(self.ENV)
        (scripts / "versions" / "theirs1.py").write_text(self.REVISION)
        self.config = Config()
        self.config.set_main_option("script_location", str(scripts))
        there = DatabaseURL.parse(url).sqlalchemy_url().replace("%", "%%")
        self.config.set_main_option("sqlalchemy.url", there)

    def upgrade(self) -> None:
        command.upgrade(self.config, "head")


def _connects(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
