"""`worker db` and `worker config`: what they give and with which exit code."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.cli import CLI
from tests.postgres import with_database
from worker.cli import invoke
from worker.settings import Settings


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
