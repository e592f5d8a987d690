"""`worker db` and `worker config`: what they give and with which exit code."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.cli import CLI, PROGRAM
from tests.postgres import local_binaries, with_database
from worker.cli import invoke
from worker.settings import Settings
from worker.url import DatabaseURL


@pytest.fixture
def cli(
    admin: psycopg.Connection, database_server: str, capsys: pytest.CaptureFixture[str]
) -> Iterator[CLI]:
    """On an empty database."""
    name = sql.Identifier(f"duerow_empty_{uuid.uuid4().hex[:12]}")
    admin.execute(sql.SQL("create database {}").format(name))
    yield CLI(with_database(database_server, name.as_string(admin).strip('"')), capsys)
    admin.execute(sql.SQL("drop database {} with (force)").format(name))


def test_from_nothing_to_up_to_date_and_back(cli: CLI) -> None:
    missing = cli("db", "check")
    assert missing.code == 4
    assert missing.err.startswith("The database has no schema `worker`\n")
    assert cli("db", "status").record["state"] == "missing"
    first = cli("db", "migrate")
    assert first.code == 0
    assert first.out.startswith("migrated from nothing to ")
    again = cli("db", "migrate")
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("up to date at ")
    checked = cli("db", "check", "--json")
    assert checked.code == 0
    assert checked.json[0]["state"] == "up to date"
    assert checked.json[0]["pending"] == []
    refused = cli("db", "downgrade", "base")
    assert refused.code == 2
    assert refused.err.endswith("next: add --yes to do it\n")
    assert cli("db", "check").code == 0
    back = cli("db", "downgrade", "base", "--yes", "--json")
    assert back.code == 0
    assert back.json[0]["after"] is None
    assert cli("db", "status").record["state"] == "missing"


def test_migrate_as_json(cli: CLI) -> None:
    [report] = cli("db", "migrate", "--json").json
    assert (report["before"], report["up_to_date"]) == (None, False)
    assert report["ran"][-1] == report["after"]


def test_an_unknown_revision(cli: CLI) -> None:
    found = cli("db", "migrate", "--revision", "0999")
    assert found.code == 2
    assert "0999" in found.err


def test_sql_needs_no_database(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/d")
    assert invoke(["db", "sql"]) == 0
    assert "create table worker.jobs" in capsys.readouterr().out.lower()
    assert invoke(["db", "sql", "head:base", "--downgrade"]) == 0
    assert "drop" in capsys.readouterr().out.lower()


@pytest.fixture
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "PGHOST", "RAILWAY_ENVIRONMENT", "DUEROW_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_settings")
def test_config_tells_where_each_setting_was_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.duerow]\nlease = "40s"\n')
    monkeypatch.setenv("DUEROW_CONCURRENCY", "7")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@h/d")
    assert invoke(["config", "show", "--origins", "--grace", "9s"]) == 0
    out = capsys.readouterr().out
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()}
    assert lines["grace"] == ["9s", "flag --grace"]
    assert lines["concurrency"] == ["7", "env DUEROW_CONCURRENCY"]
    assert lines["lease"] == ["40s", f"{tmp_path}/pyproject.toml [tool.duerow]"]
    assert lines["poll_interval"] == ["1s", "default"]
    assert lines["database_url"] == [
        "postgresql://u:***@h:5432/d?sslmode=prefer",
        "env DATABASE_URL",
    ]
    assert set(lines) == {"name", *Settings.model_fields}


@pytest.mark.usefixtures("no_settings")
def test_config_as_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert invoke(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == set(Settings.model_fields)


# -- psql ---------------------------------------------------------------------------------------


def psql(url: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, "db", "psql", "--database-url", url, *words]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_psql_is_on_the_database(db_url: str) -> None:
    answer = psql(db_url, "-X", "-A", "-t", "-c", "select current_database(), 'it''s'")
    assert answer.stdout == f"{DatabaseURL.parse(db_url).database}|it's\n"
    failed = psql(db_url, "-X", "-v", "ON_ERROR_STOP=1", "-c", "select nothing")
    assert (failed.returncode, 'column "nothing" does not exist' in failed.stderr) == (1, True)


def test_psql_gets_the_password_unseen(tmp_path: Path) -> None:
    shown = tmp_path / "psql"
    shown.write_text('#!/bin/sh\necho "$@" "PGPASSWORD=$PGPASSWORD"\n')
    shown.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    answer = psql("postgresql://ann:s3cret@db.example/shop", "-c", "select 1", PATH=path)
    words, _, secret = answer.stdout.partition("PGPASSWORD=")
    assert secret == "s3cret\n"
    assert "s3cret" not in words
    assert "user=ann" in words
    assert words.endswith("-c select 1 ")


def test_without_a_psql_the_one_beside_the_embedded_is_taken(db_url: str) -> None:
    answer = psql(db_url, "-X", "-c", "select 1", PATH="/nowhere")
    assert (answer.returncode, "1 row" in answer.stdout) == (0, True), answer.stderr


def test_there_may_be_no_psql_at_all(db_url: str, tmp_path: Path) -> None:
    for name in ("postgres", "initdb"):
        (tmp_path / name).symlink_to(local_binaries().directory / name)
    answer = psql(db_url, "-c", "select 1", PATH="/nowhere", DUEROW_PG_BIN=str(tmp_path))
    assert answer.returncode == 6
    assert answer.stderr.startswith("there is no psql here\n")
