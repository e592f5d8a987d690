"""Tables on a terminal, TSV in a pipe, JSON when asked for, colours where they are wanted."""

from __future__ import annotations

import datetime as dt
import os
import pty
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from tests.cli import PROGRAM, environment, run
from worker.cli.common.output import show_record, show_rows

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
ROWS = [
    {"id": 1, "kind": "a\tb", "due": NOON, "tags": ["x", "y"], "took": dt.timedelta(seconds=90)},
    {"id": 2, "kind": "c\\n\nd", "due": None, "tags": [], "took": None},
]
COLUMNS = ("id", "kind", "due", "tags", "took")


def test_tsv_escapes_what_would_break_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, COLUMNS, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "id\tkind\tdue\ttags\ttook",
        "1\ta\\tb\t2026-01-01T12:00:00.000Z\tx,y\t90",
        "2\tc\\\\n\\nd\t\t\t",
    ]


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([*ROWS[:1], {"amount": Decimal("1.5"), "ü": True}], COLUMNS, as_json=True)
    assert capsys.readouterr().out.splitlines() == [
        '{"id":1,"kind":"a\\tb","due":"2026-01-01T12:00:00.000Z","tags":["x","y"],"took":90.0}',
        '{"amount":1.5,"ü":true}',
    ]


def test_a_record_is_a_line_for_each_value(capsys: pytest.CaptureFixture[str]) -> None:
    show_record({"a": 1, "b": None, "c": {"d": 1.5}}, as_json=False)
    assert capsys.readouterr().out == 'a\t1\nb\t\nc\t{"d":1.5}\n'


CODE = """
import datetime as dt, sys
from worker.cli.common.output import show_rows
from worker.cli.common.terminal import say
rows = [{"id": 7, "kind": "esc\\x1b[31mape", "took": dt.timedelta(seconds=90)}]
show_rows(rows, ("id", "kind", "took"), as_json=False)
say("what went wrong\\n  next: this", error=True)
"""


def on_a_terminal(env: dict[str, str]) -> str:
    """What the code above writes to a terminal 80 columns wide, stdout and stderr."""
    leader, follower = pty.openpty()
    base = {name: value for name, value in environment().items() if name != "TERM"}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**base, "TERM": "xterm", "COLUMNS": "80", **env},
    )
    os.close(follower)
    text = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # Linux's way to say that the other side has gone
            break
        if not piece:
            break
        text += piece
    os.close(leader)
    assert process.wait() == 0
    return text.decode().replace("\r\n", "\n")


def in_a_pipe(env: dict[str, str]) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=environment(env),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def test_a_terminal_gets_a_table_and_colours() -> None:
    text = on_a_terminal({})
    assert "\x1b[31;1mwhat went wrong\x1b[0m\n  next: this\n" in text
    assert "\x1b[1m" in text  # the heads of the columns
    assert "esc\\x1b[31mape" in text  # what stands in a row cannot drive the terminal
    assert "1m30s" in text
    assert "\t" not in text


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_terminal_without_colours(env: dict[str, str]) -> None:
    text = on_a_terminal(env)
    assert "1m30s" in text
    assert "\x1b" not in text


def test_no_codes_in_a_pipe() -> None:
    out, err = in_a_pipe({})
    assert out == "id\tkind\ttook\n7\tesc\x1b[31mape\t90\n"
    assert err == "what went wrong\n  next: this\n"


def test_colours_that_are_asked_for_are_messages_only() -> None:
    """A script that inherits FORCE_COLOR still reads plain TSV."""
    out, err = in_a_pipe({"FORCE_COLOR": "1"})
    assert out.startswith("id\tkind\ttook\n7\t")
    assert err.startswith("\x1b[31;1mwhat went wrong\x1b[0m\n")
    assert "\x1b" not in in_a_pipe({"FORCE_COLOR": "1", "NO_COLOR": "1"})[1]


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    """As in `worker audit list | head -1`."""
    for _ in range(3):
        process = subprocess.Popen(
            [*PROGRAM, "db", "sql"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_init_writes_what_runs(tmp_path: Path, db_url: str) -> None:
    env = {"DATABASE_URL": db_url}
    made = run("init", cwd=tmp_path)
    assert (made.code, made.out) == (0, "app.py\nProcfile\n")
    commands = [line.strip() for line in made.err.splitlines()[1:]]
    assert commands == ["""worker enqueue hello '{"name": "world"}'""", "worker run"]
    assert run("enqueue", "hello", '{"name": "world"}', cwd=tmp_path, env=env).code == 0
    drained = run("drain", cwd=tmp_path, env=env)
    assert drained.code == 0
    assert '"event":"hello","source":"jobs","key":1' in drained.err
    again = run("init", cwd=tmp_path)
    assert again.code == 2
    assert again.err.startswith("app.py exists already, and is left as it is\n")


def test_init_leaves_a_procfile_alone(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: gunicorn shop\n")
    made = run("init", cwd=tmp_path)
    assert (made.code, made.out) == (0, "app.py\n")
    assert "it needs:\n  release: worker db migrate\n  worker: worker run\n" in made.err
    assert (tmp_path / "Procfile").read_text() == "web: gunicorn shop\n"


def test_our_own_procfile_is_what_init_writes() -> None:
    from worker.cli.init import PROCFILE

    assert (Path(__file__).parent.parent / "Procfile").read_text() == PROCFILE
