"""Writes sql/schema.sql: the whole schema in one file, as the revisions leave it.

`python alembic/snapshot.py`, or `make schema`. Run it after every change to a revision; a test
compares the file with a migrated database. It starts a Postgres of its own.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import psycopg

from worker.assets import alembic_directory, sql_directory
from worker.embedded import EmbeddedPostgres, find_binaries
from worker.migrate import upgrade

# Daily partitions are named after the day they were made, not part of the schema.
DAILY = "*_[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]"

HEADER = """\
-- Generated from the revisions in alembic/versions by `make schema`. Do not edit: read it, or
-- load it into an empty database (psql -1 -f). The comments on each table are in the revisions.
"""

DATA = """\
-- What the revisions insert. Partitions are made for the days to come.

insert into worker.installation (schema_version, compatible_with) values ({version}, {compatible});
insert into worker.schema_revisions (version_num) values ('{revision}');
"""

# Of pg_dump's output: titles, session settings, and the guard against hostile dumps.
NOISE = re.compile(
    r"^--\n-- .*\n--\n|^-- Dumped .*\n|^SET .*;\n|^\\.*\n|^SELECT pg_catalog.set_config.*\n", re.M
)


def snapshot(url: str, pg_dump: Path) -> str:
    """The schema of the migrated database at `url`."""
    dumped = subprocess.run(
        [
            pg_dump,
            "--schema-only",
            "--no-owner",
            "--schema=worker",
            f"--exclude-table=worker.{DAILY}",
            url,
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    schema = re.sub(r"\n{3,}", "\n\n", NOISE.sub("", dumped)).strip()
    return "\n".join((HEADER + "--", prologue(), schema, "", data(url)))


def prologue() -> str:
    """The page of comments that the first revision opens with."""
    lines = (alembic_directory() / "versions" / "0001_core.sql").read_text("utf-8").splitlines()
    page = lines[: lines.index("")]
    return "\n".join([*page, ""])


def data(url: str) -> str:
    with psycopg.connect(url) as connection:
        one = connection.execute(
            "select schema_version, compatible_with, version_num"
            "  from worker.installation, worker.schema_revisions"
        ).fetchone()
        assert one is not None
        keys = connection.execute(
            "select c.relname, a.attname"
            "  from pg_partitioned_table p join pg_class c on c.oid = p.partrelid"
            "  join pg_attribute a on a.attrelid = p.partrelid and a.attnum = p.partattrs[0]"
            " where c.relnamespace = 'worker'::regnamespace order by 1"
        ).fetchall()
    rows = DATA.format(version=one[0], compatible=one[1], revision=one[2])
    days = (f"select worker.ensure_partitions('{table}', '{key}', 7);\n" for table, key in keys)
    return rows + "".join(days)


def main() -> None:
    binaries = find_binaries()
    with tempfile.TemporaryDirectory(prefix="duerow-schema-") as home:
        Path(home).chmod(0o711)  # the server's account has to pass
        with EmbeddedPostgres(Path(home), binaries=binaries, disposable=True) as url:
            upgrade(url)
            text = snapshot(url, binaries.directory / "pg_dump")
    (sql_directory() / "schema.sql").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
