"""The embedded server as its users see it: acquire a URL, release it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from worker.embedded import keeper
from worker.embedded.binaries import Binaries
from worker.embedded.choice import Choice, choose
from worker.embedded.home import Instance, default_home, instances, make_socket_dir, stand_in
from worker.embedded.initdb import clear_halves, initialize
from worker.embedded.locks import FileLock
from worker.embedded.postmaster import answers, is_kept, last_words, pid_of, url_of
from worker.errors import EmbeddedPostgresError

log = logging.getLogger("worker.embedded")

START_TIMEOUT = 60.0  # seconds; recovery after a crash may take a while
LOCK_TIMEOUT = 60.0
LINGER = 1.0  # seconds that a server outlives a user that was killed
LARGEST_LOG = 10_000_000  # bytes


@dataclass(frozen=True)
class Status:
    """What there is to know about an embedded server without touching it."""

    running: bool
    url: str | None
    pid: int | None  # of the postmaster
    instance: Instance | None  # data, log and version; None before the first start


class EmbeddedPostgres:
    """A Postgres of the project's own, started by its first user and stopped after its last.

        with EmbeddedPostgres() as url:
            psycopg.connect(url)

    Users are processes; however one ends, even by SIGKILL, it counts as gone at once, and the
    others keep the server. A server that crashes is started again as long as it has users.

    home: the directory for everything, by default DUEROW_HOME or `.duerow` in the project's root.
    binaries: by default what `find_binaries` prefers, or what the data was written with.
    settings: server settings that go before those in postgresql.conf.
    restart: whether a crashed server comes back by itself, before the next `acquire`.
    disposable: delete the home when the last user has left.

    Not for use by several threads at once; a forked child is no user until it acquires for itself.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        binaries: Binaries | None = None,
        settings: Mapping[str, str] | None = None,
        restart: bool = True,
        disposable: bool = False,
    ) -> None:
        self._home = (home or default_home()).resolve()
        self._named = binaries
        self._settings = dict(settings or {})
        self._restart = restart
        self._disposable = disposable
        self._choice: Choice | None = None
        self._use: FileLock | None = None  # held shared for as long as we are a user

    def __enter__(self) -> str:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    # -- for users ------------------------------------------------------------------------

    def acquire(self) -> str:
        """Become a user, start the server if it does not run, and return its URL.

        Again while held: makes sure that it runs. Raises EmbeddedPostgresError.
        """
        was_held = self._use is not None and self._use.intact
        with self._starting():
            try:
                self._become_user()
                self._initialize_once()
                return self._running()
            except BaseException:
                if not was_held:
                    self._leave()
                raise

    def release(self) -> None:
        """Be a user no more; the last one waits until the server has stopped."""
        if self._use is None:
            return
        if not self._use.intact:  # a fork's copy, or the directory was deleted
            self._leave()
            return
        with self._starting():
            # Asked before we let go: afterwards the keeper might be looking, and seem a user.
            last = self._use.alone()
            self._leave()
            if last:
                self._stop()
        self._choice = None

    def prepare(self) -> Instance:
        """Make the data directory if it is not there; start nothing."""
        with self._starting():
            self._initialize_once()
        return self.instance

    def status(self) -> Status:
        """Whether it runs, and where. Starts nothing, makes nothing."""
        there = [*instances(self._home), *instances(stand_in(self._home))]
        for found in sorted(there, key=is_kept, reverse=True):
            url = url_of(found) if is_kept(found) else None
            return Status(url is not None, url, pid_of(found) if url else None, found)
        return Status(running=False, url=None, pid=None, instance=None)

    @property
    def instance(self) -> Instance:
        """The server's directory. Only after `acquire` or `prepare`."""
        return self._chosen.instance

    # -- one step of the way each -----------------------------------------------------------

    @property
    def _chosen(self) -> Choice:
        if self._choice is None:
            self._choice = choose(self._home, self._named)
        return self._choice

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """Only one process at a time may start or leave."""
        while True:
            if self._use is None or not self._use.intact:
                self._choice = None  # the directories may have gone since
            lock = FileLock(self.instance.start_lock)
            try:
                _take(lock.exclusive, "another process is starting or stopping it", self.instance)
                break
            except FileNotFoundError:  # just deleted, by somebody or as disposable
                continue
        try:
            yield
        finally:
            lock.release()

    def _become_user(self) -> None:
        if self._use is None or not self._use.intact:
            self._leave()
            use = FileLock(self.instance.users_lock)
            _take(use.shared, "it is being stopped", self.instance)
            self._use = use

    def _leave(self) -> None:
        if self._use is not None:
            self._use.release()
            self._use = None

    def _initialize_once(self) -> None:
        chosen = self._chosen
        clear_halves(chosen.instance)
        if chosen.instance.major is None:
            log.info("making an embedded Postgres in %s", chosen.instance.path)
            initialize(chosen.instance, chosen.binaries, chosen.account)

    def _running(self) -> str:
        """The URL of a server that has a keeper and answers; started if need be."""
        deadline = time.monotonic() + START_TIMEOUT
        started = False
        while time.monotonic() < deadline:
            if not is_kept(self.instance):
                if started:
                    break
                self._start_keeper()
                started = True
            elif (url := url_of(self.instance)) and answers(url):
                return url
            time.sleep(0.01)
        raise self._did_not_start()

    def _stop(self) -> None:
        """Send the keeper home, with a keeper made for it if the old one was killed."""
        if not is_kept(self.instance):
            if pid_of(self.instance) is None:
                return
            self._start_keeper()
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            # It may be another account's keeper; then it looks for itself, a little later.
            os.kill(int(self.instance.keeper_lock.read_text()), signal.SIGTERM)
        keeping = FileLock(self.instance.keeper_lock)
        with contextlib.suppress(FileNotFoundError):  # it was disposable
            _take(keeping.exclusive, "it does not stop", self.instance)
            keeping.release()

    def _start_keeper(self) -> None:
        chosen = self._chosen
        job = {
            "instance": str(chosen.instance.path),
            "data": str(chosen.instance.data),
            "socket_dir": str(socket_dir := make_socket_dir(chosen.instance, chosen.account)),
            "command": self._command(socket_dir),
            "account": chosen.account.popen,
            "linger": LINGER,
            "restart": self._restart,
            "remove": str(chosen.instance.path.parent) if self._disposable else None,
        }
        command = [sys.executable, "-I", "-S", keeper.__file__, json.dumps(job)]
        with _open_log(chosen.instance) as output:
            try:
                subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    env=_environment(),
                    check=True,
                )
            except (OSError, subprocess.CalledProcessError) as error:
                raise self._did_not_start() from error

    def _did_not_start(self) -> EmbeddedPostgresError:
        return EmbeddedPostgresError(
            "The embedded Postgres did not start.",
            why=last_words(self.instance),
            hint=f"tail -n 50 {self.instance.log}",
        )

    def _command(self, socket_dir: Path) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(socket_dir),
            "port": "5432",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self._chosen.binaries.postgres, "-D", str(self.instance.data), *options]


def _take(lock: Callable[[float], None], why: str, instance: Instance) -> None:
    try:
        lock(LOCK_TIMEOUT)
    except TimeoutError as error:
        raise EmbeddedPostgresError(
            "The embedded Postgres is busy.",
            why=f"{why}, for more than {LOCK_TIMEOUT:.0f} s",
            hint=f"fuser -v {instance.path}/*.lock   (who that is)",
        ) from error


def _open_log(instance: Instance) -> IO[bytes]:
    if instance.log.exists() and instance.log.stat().st_size > LARGEST_LOG:
        instance.log.rename(instance.log.with_suffix(".log.old"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return os.fdopen(os.open(instance.log, flags, 0o600), "ab")


def _environment() -> dict[str, str]:
    """Nothing of ours: no secrets, and no PG* variables that would change the server."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", **kept}
