"""Bad input: each message, word for word. Passwords are never in one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.cli import CLI
from worker.cli import invoke

APP = """\
from worker import App

app = App()


@app.handler("charge", queue="payments")
async def charge(donation_id: int, note: str = ""): ...
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    sys.modules.pop("app", None)


@pytest.fixture
def cli(db_url: str, capsys: pytest.CaptureFixture[str]) -> CLI:
    return CLI(db_url, capsys)


def test_a_good_one(cli: CLI, pg: psycopg.Connection) -> None:
    arguments = ("--priority", "-5", "--in", "1h", "--tenant", "acme", "--unique-key", "k")
    made = cli("enqueue", "charge", '{"donation_id": 7}', *arguments, "--json")
    assert made.code == 0
    assert made.json[0]["created"] is True
    row = pg.execute(
        "select kind, queue, args, priority, tenant, unique_key, due_at > now() + '59 min'"
        " from worker.jobs where id = %s",
        [made.json[0]["id"]],
    ).fetchone()
    assert row == ("charge", "payments", {"donation_id": 7}, -5, "acme", "k", True)
    again = cli("enqueue", "charge", '{"donation_id": 7}', "--unique-key", "k", "--json")
    assert again.json == [{"id": made.json[0]["id"], "created": False}]


def test_arguments_from_stdin(
    cli: CLI, pg: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO('{"donation_id": 8}\n'))
    assert cli("enqueue", "charge", "-").code == 0
    assert pg.execute("select args from worker.jobs").fetchone() == ({"donation_id": 8},)


def test_a_kind_without_an_app_to_check_it_against(
    cli: CLI, project: Path, pg: psycopg.Connection
) -> None:
    (project / "app.py").unlink()
    assert cli("enqueue", "whatever", '{"a": 1}').code == 0
    assert pg.execute("select kind, queue from worker.jobs").fetchone() == ("whatever", "default")


def test_a_kind_that_runs_the_rows_of_a_table(
    cli: CLI, project: Path, pg: psycopg.Connection
) -> None:
    adopted = """
@app.rows("donations", due="next_charge_at")
async def due_donation(row: dict): ...
"""
    (project / "app.py").write_text(APP + adopted)
    found = cli("enqueue", "donations", "{}")
    assert (found.code, found.err) == (
        2,
        "'donations' cannot be enqueued\n"
        "  why:  its handler runs the rows of donations, not jobs\n"
        "  next: to run a row of it now, write now() to its next_charge_at\n",
    )


ONE_MEGABYTE = json.dumps({"donation_id": 7, "note": "x" * 2**20})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("chrage", '{"donation_id": 7}'),
            "no handler is registered for kind 'chrage'\n"
            "  why:  app:app registers: charge\n"
            "  next: worker enqueue charge\n",
        ),
        (
            ("refund", "{}"),
            "no handler is registered for kind 'refund'\n"
            "  why:  app:app registers: charge\n"
            "  next: register it: @app.handler\n",
        ),
        (
            ("charge", '{"donation_id": "seven"}'),
            "the arguments of 'charge' do not fit its handler\n"
            "  why:  donation_id: Input should be a valid integer, unable to parse string as an"
            " integer\n"
            "  next: it takes: donation_id, note\n",
        ),
        (
            ("charge", "{}"),
            "the arguments of 'charge' do not fit its handler\n"
            "  why:  donation_id: Field required\n"
            "  next: it takes: donation_id, note\n",
        ),
        (
            ("charge", '{"donation_id": 7'),
            "the arguments are not JSON\n"
            "  why:  Expecting ',' delimiter: line 1 column 18 (char 17)\n"
            '  next: quote them for the shell: worker enqueue hello \'{"name": "you"}\'\n',
        ),
        (
            ("charge", "[7]"),
            "the arguments are a JSON array, not an object\n"
            "  why:  a handler takes its arguments by name\n"
            '  next: worker enqueue hello \'{"name": "you"}\'\n',
        ),
        (
            ("charge", ONE_MEGABYTE),
            "a job of kind 'charge' cannot be enqueued\n"
            "  why:  args: 1,048,603 bytes are over the limit of 262,144\n"
            "  next: store the data in a table or an object store and pass its key\n",
        ),
        (
            ("charge", '{"donation_id": 7, "note": "a\\u0000b"}'),
            "a job of kind 'charge' cannot be enqueued\n"
            "  why:  args: note holds a NUL character, which Postgres refuses\n"
            "  next: take it out\n",
        ),
    ],
)
def test_enqueue_refuses(
    cli: CLI, pg: psycopg.Connection, arguments: tuple[str, ...], told: str
) -> None:
    found = cli("enqueue", *arguments)
    assert (found.code, found.err, found.out) == (2, told, "")
    assert pg.execute("select count(*) from worker.jobs").fetchone() == (0,)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://u:hunter2@h/d", "the scheme is mysql, and only Postgres will do"),
        ("postgresql://u:hunter2@h:port/d", "a port is a number from 1 to 65535"),
        (
            "postgresql://u:hunter2@h/d?sslmode=maybe",
            "The value 'maybe' of sslmode is not valid (the database URL); it must be one of "
            "disable, allow, prefer, require, verify-ca, verify-full",
        ),
        ("hunter2", "it does not start with postgres:// or postgresql://"),
    ],
)
@pytest.mark.parametrize("verb", [("run",), ("jobs", "list"), ("db", "migrate")], ids=" ".join)
def test_a_bad_url(
    verb: tuple[str, ...], url: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke([*verb, "--database-url", url]) == 2
    err = capsys.readouterr().err
    assert err.startswith(
        "A setting is not valid\n  why:  database_url (flag --database-url): The "
    )
    assert why in err
    assert err.endswith("\n  next: correct flag --database-url\n")
    assert "hunter2" not in err


def test_a_bad_url_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DUEROW_DATABASE_URL", raising=False)
    monkeypatch.setenv("DATABASE_URL", "redis://localhost")
    assert invoke(["status"]) == 2
    assert "database_url (env DATABASE_URL)" in capsys.readouterr().err
