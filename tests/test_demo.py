"""`worker demo` as a user runs it, off a terminal; and the payments API that it charges over."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.facts import eventually
from tests.postgres import with_database
from worker.demo.api import DECK, DECLINED, FAULTS, Faults, Ledger, Payments
from worker.demo.figures import Verdict, charged_once
from worker.demo.processes import begin_server, worker_command
from worker.demo.report import report
from worker.errors import DuerowError

ROWS = 600  # so many that a moment in which nobody looks is not the whole of it


def demo(directory: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The whole of it, in an empty directory."""
    return subprocess.run(
        [*worker_command(), "demo", "--rows", str(ROWS), *options],
        cwd=directory,
        env=_environment(variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _environment(variables: dict[str, str]) -> dict[str, str]:
    led_astray = ("DUEROW_", "DATABASE_URL", "PG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(led_astray)}
    return {**kept, **variables}


# -- the whole of it ----------------------------------------------------------------------------


@pytest.mark.process
def test_every_donation_is_charged_once(
    db_url: str, pg: psycopg.Connection, tmp_path: Path
) -> None:
    ended = demo(tmp_path, "--database-url", db_url)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[-1] == f"charged exactly once: {ROWS} of {ROWS}"
    assert "\x1b" not in ended.stdout + ended.stderr
    assert any(re.search(r"worker-1 is killed \(SIGKILL\) with \d+ donations", x) for x in lines)
    assert any("worker-1 is declared dead after" in line for line in lines)
    assert any("worker tables add duerow_demo_" in line for line in lines)
    assert any("worker-2 has left, exit code 0" in line for line in lines)

    # The record tells the same, asked without the demo's own code; of the table nothing is left.
    done = "select count(*), count(distinct row_key) from worker.attempts where outcome = 'done'"
    assert _rows(pg, done) == {(ROWS, ROWS)}
    assert _left(pg) == set()
    assert _rows(pg, "select name from worker.workers where gone_at is not null") == {("worker-1",)}
    # On a busy machine the last one may be told to stop before it has come so far as to register.
    assert _rows(pg, "select name from worker.workers where stopped_at is null") == {("worker-1",)}
    [(tried_again,)] = _rows(pg, "select count(*) from worker.attempts where outcome = 'retry'")
    assert re.search(rf"attempts .* {ROWS} done, {tried_again} failed and tried", ended.stdout)
    hint = ended.stderr.splitlines()[-1].replace("$DATABASE_URL", db_url)
    timeline = subprocess.run(
        [*worker_command(), *hint.replace('"', "").split()[1:]], capture_output=True, text=True
    )
    assert "crashed" in timeline.stdout, timeline.stderr
    assert "done" in timeline.stdout.splitlines()[-1]
    pids = [int(found) for found in re.findall(r"pid (\d+)", ended.stdout)]
    assert len(pids) == 4
    assert not any(map(_alive, pids))


@pytest.mark.process
def test_it_plays_on_the_embedded_postgres_whatever_the_environment_says(tmp_path: Path) -> None:
    elsewhere = "postgresql://nobody@127.0.0.1:1/production"
    with tempfile.TemporaryDirectory(prefix="duerow-demo-home-") as home:
        Path(home).chmod(0o711)  # for the account that runs it when we are root
        variables = {"DATABASE_URL": elsewhere, "DUEROW_DIRECT_URL": elsewhere}
        ended = demo(tmp_path, "--json", **variables, DUEROW_HOME=home)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    verdict = json.loads(ended.stdout)
    assert verdict["charged_once"] == verdict["donations"] == verdict["rows_done"] == ROWS
    assert verdict["attempts"]["done"] == ROWS
    assert verdict["attempts"]["crashed"] >= 1
    assert verdict["requests"] >= ROWS + sum(verdict["faults"].values())
    assert verdict["problems"] == []
    assert f"using the embedded Postgres in {home}" in ended.stderr


@pytest.mark.process
def test_it_says_no_when_donations_were_charged_twice(db_url: str, tmp_path: Path) -> None:
    """With an API that forgets keys, every answer that is lost leads to a second charge."""
    ended = demo(tmp_path, "--forget-keys", "--errors", "0.2", "--database-url", db_url)
    assert ended.returncode == 8, ended.stdout + ended.stderr
    *_, untrue, last = ended.stdout.splitlines()
    [twice] = re.findall(r"NOT TRUE: (\d+) donations were charged more than once", untrue)
    assert int(twice) > 0
    assert last == f"charged exactly once: {ROWS - int(twice)} of {ROWS}"


@pytest.mark.process
def test_without_the_schema_it_says_how_to_get_it(
    admin: psycopg.Connection, database_server: str, tmp_path: Path
) -> None:
    ended = demo(tmp_path, "--database-url", with_database(database_server, "postgres"))
    assert ended.returncode == 4
    assert ended.stdout == ""
    assert "worker db migrate" in ended.stderr


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_behind(
    db_url: str, pg: psycopg.Connection, tmp_path: Path, number: signal.Signals
) -> None:
    playing = subprocess.Popen(
        [*worker_command(), "demo", "--rows", "2000", "--database-url", db_url],
        cwd=tmp_path,
        env=_environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    begun = "select 1 from worker.attempts limit 1"
    try:
        eventually(lambda: _rows(pg, begun), within=30)
        children = _children(playing.pid)
        assert len(children) == 4  # the API and three workers
        playing.send_signal(number)
        output, errors = playing.communicate(timeout=20)
    finally:
        playing.kill()
        playing.wait()
    assert playing.returncode == 130, output + errors
    assert "Traceback" not in errors
    assert not any(map(_alive, children))
    assert _left(pg) == set()


def _left(pg: psycopg.Connection) -> set[tuple[Any, ...]]:
    """What the demo has not taken back."""
    return _rows(
        pg,
        "select nspname::text from pg_namespace where nspname like 'duerow%'"
        " union all select name from worker.sources",
    )


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return [int(child) for child, parent in pairs if int(parent) == pid]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _rows(pg: psycopg.Connection, query: str) -> set[tuple[Any, ...]]:
    return set(pg.execute(query))  # type: ignore[arg-type]


# -- the payments API -----------------------------------------------------------------------------


@contextlib.contextmanager
def payments(ledger: Ledger, faults: Faults) -> Iterator[str]:
    """Its host and port."""
    server = Payments(ledger, faults)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield urlsplit(server.url).netloc
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def post(address: str, key: str | None, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(address, timeout=5)
    with contextlib.closing(connection):
        headers = {} if key is None else {"Idempotency-Key": key}
        connection.request("POST", "/charges", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_a_key_is_charged_once() -> None:
    ledger = Ledger()
    with payments(ledger, Faults(0)) as address:
        assert post(address, None, {"donation": 1, "cents": 5})[0] == 400
        status, first = post(address, "a", {"donation": 1, "cents": 5})
        assert status == 201
        assert post(address, "a", {"donation": 1, "cents": 5}) == (200, first)
        assert post(address, "a", {"donation": 1, "cents": 6})[0] == 422
        assert post(address, "b", {"donation": 2, "cents": 5})[0] == 201
    told = ledger.told()
    assert [charge["donation"] for charge in told["charges"]] == [1, 2]
    assert (told["requests"], told["replays"], told["conflicts"]) == (5, 1, 1)


def test_a_card_that_is_declined_is_declined_always() -> None:
    ledger = Ledger()
    body = {"donation": 1, "cents": 5, "card": DECLINED}
    with payments(ledger, Faults(0)) as address:
        assert [post(address, "a", body)[0] for _ in range(2)] == [402, 402]
    told = ledger.told()
    assert (told["declined"], told["charges"]) == (2, [])


def test_a_client_that_is_killed_on_the_way_is_nothing_to_report(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ledger = Ledger()
    with payments(ledger, Faults(0)) as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                b"POST /charges HTTP/1.0\r\nIdempotency-Key: a\r\nContent-Length: 9\r\n\r\n{"
            )
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
    assert (ledger.told()["requests"], ledger.told()["charges"]) == (0, [])
    assert capsys.readouterr().err == ""


def test_an_api_that_forgets_keys_charges_again() -> None:
    ledger = Ledger(keeps_keys=False)
    assert [ledger.charge("a", {"donation": 1, "cents": 5})[0] for _ in range(2)] == [201, 201]


def test_requests_fail_in_four_ways() -> None:
    ledger, faults = Ledger(), Faults(0)
    with payments(ledger, faults) as address:
        for sort in FAULTS:
            faults._left = [sort]
            if sort in ("503", "429"):
                assert post(address, sort, {"donation": 1, "cents": 5})[0] == int(sort)
            else:
                with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
                    post(address, sort, {"donation": 1, "cents": 5})
    told = ledger.told()
    assert told["faults"] == dict.fromkeys(FAULTS, 1)
    assert [charge["key"] for charge in told["charges"]] == ["reset after the charge"]


def test_one_request_in_ten_fails() -> None:
    faults = Faults(0.1)
    drawn = [faults.next() for _ in range(3 * DECK)]
    assert {sort: drawn.count(sort) for sort in FAULTS} == dict.fromkeys(FAULTS, 3)


def test_the_api_ends_with_who_started_it() -> None:
    """Even if that one could not tell it to."""
    api = subprocess.Popen(
        [sys.executable, "-m", "worker.demo.api"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with api:
        assert api.stdout is not None
        assert api.stdin is not None
        assert api.stdout.readline().startswith(b"http://127.0.0.1:")
        api.stdin.close()
        assert api.wait(timeout=10) == 0


def test_an_api_that_ends_without_a_word_has_not_started() -> None:
    with pytest.raises(DuerowError, match="the API did not start"):
        begin_server("the API", [sys.executable, "-c", ""])


# -- the verdict ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("charges", "once"),
    [
        ([(1, 5), (2, 6)], 2),
        ([(1, 5)], 1),
        ([(1, 5), (2, 6), (2, 6)], 1),
        ([(1, 5), (2, 7)], 1),
        ([(1, 5), (3, 6)], 1),
        ([], 0),
    ],
)
def test_charged_once(charges: list[tuple[int, int]], once: int) -> None:
    ledger = [{"donation": str(donation), "cents": cents} for donation, cents in charges]
    assert charged_once({"1": 5, "2": 6}, ledger) == once


def test_the_report_says_what_is_not_true() -> None:
    faults = {"503": 1}
    verdict = Verdict(
        2, 1, 2, {"done": 2}, 0, 3, faults, 0, 0, 1.0, "demo", None, ["one is missing"]
    )
    assert not verdict.true
    assert report(verdict).splitlines()[-2:] == [
        "NOT TRUE: one is missing",
        "charged exactly once: 1 of 2",
    ]
