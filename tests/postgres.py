"""The Postgres that tests and benchmarks run on.

One server for a whole session, shared by all its pytest-xdist workers, from the first of:

1. WORKER_TEST_DATABASE_URL, whose role may create databases;
2. a container, when a Docker engine answers;
3. the programs on this machine;
4. the programs in the wheel of the `embedded` extra.

WORKER_TEST_PG_VERSION=15|16|18 asks for a major version; without it any will do.
A `Cluster` is a server of a test's own, which it may stop, kill and start again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg

from worker.embedded import Binaries, EmbeddedPostgres
from worker.embedded.binaries import every_binaries
from worker.embedded.locks import FileLock
from worker.embedded.postmaster import is_kept, pid_of

# Tests lose nothing with the machine, so the server need not wait for its disk. What was
# committed still survives a kill of the server, for which synchronous_commit must stay on.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "256MB",
    "max_connections": "300",
}
# A database is a thousand small files: 20 ms to copy in memory, up to 400 ms on a busy disk.
MEMORY = Path("/dev/shm")
ENOUGH_MEMORY = 4_000_000_000  # bytes free there
DOCKER_ANSWERS_WITHIN = 2  # seconds
CONTAINER_TIMEOUT = 300.0  # seconds, to pull and start it, or for the other workers to end

Mode = Literal["smart", "fast", "immediate", "kill"]
SIGNALS: dict[Mode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
    "kill": signal.SIGKILL,
}


class NoPostgres(Exception):
    """There is no Postgres of the wanted version to test on."""


def with_database(url: str, name: str) -> str:
    """The same server's URL for another database."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="/" + quote(name)))


def wanted_major() -> int | None:
    version = os.environ.get("WORKER_TEST_PG_VERSION")
    return int(version) if version else None


def local_binaries(major: int | None = None) -> Binaries:
    """The machine's programs, else the wheel's. Raises NoPostgres."""
    found = list(every_binaries())
    found.sort(key=lambda one: one.origin == "wheel")  # stable: the machine's come first
    for one in found:
        if major in (None, one.major):
            return one
    there = ", ".join(f"{one.version} in {one.directory}" for one in found) or "none"
    raise NoPostgres(
        f"no Postgres {major or ''} on this machine, only: {there}; "
        "try: pip install -e '.[embedded]'"
    )


def fast_place() -> Path:
    """Where data that nobody will miss is kept: in memory if there is enough of it."""
    try:
        space = os.statvfs(MEMORY)
    except FileNotFoundError:
        return Path(tempfile.gettempdir())
    roomy = space.f_bavail * space.f_frsize >= ENOUGH_MEMORY
    return MEMORY if roomy and os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())


# -- the server of the session --------------------------------------------------------------


@contextlib.contextmanager
def session_server(shared: Path) -> Iterator[str]:
    """The URL of the session's server. `shared` is a directory that all its workers know."""
    major = wanted_major()
    if named := os.environ.get("WORKER_TEST_DATABASE_URL"):
        _check_version(named, major)
        yield named
    elif docker_answers():
        with _container(shared, major or 18) as url:
            yield url
    else:
        with _shared_cluster(shared, local_binaries(major)) as url:
            yield url


def docker_answers() -> bool:
    try:
        import docker

        client = docker.from_env(timeout=DOCKER_ANSWERS_WITHIN)
        client.ping()
        client.close()
    except Exception:  # not installed, not running, not for us: all the same here
        return False
    return True


def _check_version(url: str, major: int | None) -> None:
    with psycopg.connect(url, connect_timeout=10) as connection:
        there = connection.info.server_version // 10_000
    if major not in (None, there):
        raise NoPostgres(
            f"WORKER_TEST_PG_VERSION is {major}, but WORKER_TEST_DATABASE_URL leads to {there}"
        )


@contextlib.contextmanager
def _shared_cluster(shared: Path, binaries: Binaries) -> Iterator[str]:
    """Each worker is a user of it; the last to leave, or to be killed, takes it along."""
    name = hashlib.sha256(os.fsencode(shared)).hexdigest()[:12]
    # Not in pytest's own directory: the server's account cannot enter that when we are root.
    home = fast_place() / f"duerow-tests-{name}"
    server = EmbeddedPostgres(home, binaries=binaries, settings=SETTINGS, disposable=True)
    with server as url:
        yield with_database(url, "postgres")


@contextlib.contextmanager
def _container(shared: Path, major: int) -> Iterator[str]:
    """The worker that starts it stays until the others have left, then stops it."""
    from testcontainers.community.postgres import PostgresContainer

    users, start = FileLock(shared / "container.users"), FileLock(shared / "container.start")
    address = shared / "container.url"
    container = None
    start.exclusive(CONTAINER_TIMEOUT)
    users.shared(CONTAINER_TIMEOUT)
    try:
        if not address.exists():
            options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
            container = PostgresContainer(f"postgres:{major}").with_command(f"postgres {options}")
            container.start()
            address.write_text(container.get_connection_url(driver=None))
        start.release()
        yield with_database(address.read_text(), "postgres")
    finally:
        start.release()
        users.release()
        if container is not None:
            users.exclusive(CONTAINER_TIMEOUT)
            address.unlink(missing_ok=True)
            users.release()
            container.stop()


# -- a server of one's own ------------------------------------------------------------------


class Cluster:
    """A Postgres that belongs to one test or benchmark, to stop, kill and start at will.

    It does not come back by itself, and is gone, with its data, after `close()` or with the
    process that made it.

    settings: of the server, before `SETTINGS`; a benchmark will want fsync on.
    tcp: listen on a free port of 127.0.0.1 too.
    place: the directory to keep the data in, by default `fast_place()`.
    """

    def __init__(
        self,
        binaries: Binaries | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        tcp: bool = False,
        place: Path | None = None,
    ) -> None:
        self.binaries = binaries or local_binaries(wanted_major())
        home = tempfile.mkdtemp(prefix="duerow-cluster-", dir=place or fast_place())
        self.home = Path(home).resolve()
        self.home.chmod(0o711)
        listen = {"listen_addresses": "127.0.0.1", "port": str(free_port())} if tcp else {}
        self.settings = {**SETTINGS, **listen, **(settings or {})}
        self._server = EmbeddedPostgres(
            self.home,
            binaries=self.binaries,
            settings=self.settings,
            restart=False,
            disposable=True,
        )
        self._tcp = tcp
        self._url: str | None = None

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Over the socket, to the database `duerow`; the same after a restart."""
        assert self._url is not None, "the cluster was never started"
        return self._url

    @property
    def tcp_url(self) -> str:
        assert self._tcp, "the cluster was made without tcp=True"
        return f"postgresql://duerow@127.0.0.1:{self.settings['port']}/duerow"

    @property
    def pid(self) -> int | None:
        """Of the postmaster, while it runs."""
        return pid_of(self._server.instance) if self.running else None

    @property
    def running(self) -> bool:
        return is_kept(self._server.instance)

    @property
    def log(self) -> str:
        return self._server.instance.log.read_text("utf-8", "replace")

    def start(self) -> str:
        """Start it, if it does not run, and return its URL once it takes connections."""
        if self._url is None and self._tcp:
            self._trust_loopback()
        self._url = self._server.acquire()
        return self._url

    def stop(self, mode: Mode = "immediate") -> None:
        """Return when it has stopped. `immediate` is a crash with recovery at the next start,
        `kill` a SIGKILL of the postmaster."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, SIGNALS[mode])
        keeping = FileLock(self._server.instance.keeper_lock)
        keeping.exclusive(60)
        keeping.release()

    def restart(self, mode: Mode = "immediate") -> str:
        self.stop(mode)
        return self.start()

    def close(self) -> None:
        self._server.release()
        shutil.rmtree(self.home, ignore_errors=True)

    def _trust_loopback(self) -> None:
        access = self._server.prepare().data / "pg_hba.conf"
        where = ("local", "host 127.0.0.1/32")
        lines = [
            " ".join((kind, database, "all", *address, "trust"))
            for kind, *address in map(str.split, where)
            for database in ("all", "replication")
        ]
        access.write_text("\n".join(lines) + "\n")


def free_port() -> int:
    """Below those that the system gives out itself: nobody has it by the time that the server
    begins to listen, nor while it restarts."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)  # no test has seeded these
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
