"""The process that runs one embedded Postgres, and ends it when nobody uses it any more.

It stands by itself: only the standard library, nothing of this package, started by its path
as `python -I -S keeper.py JOB`, so that it starts in milliseconds and outlives whatever
started it, even an environment that is deleted meanwhile.

Three files of the instance directory, each locked with flock, which the kernel drops with the
process, however it ends:

    keeper.lock  exclusive: the keeper, for its whole life. So there is one keeper, one server.
    users.lock   shared: every process that uses the server. The keeper looks whether it can
                 have it exclusively; when it can, nobody is left. It keeps it while it stops
                 the server, so a newcomer waits and then starts the next one.
    start.lock   exclusive: a process that starts or leaves, for that moment. Never the keeper.

The server is a child of the keeper, so it is always reaped, and comes back when it crashes.
SIGTERM to the keeper means "look now": it stops at once if nobody is left, else it stays.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LOOK_EVERY = 0.25  # seconds
LONG_ENOUGH = 10.0  # seconds up, after which earlier failures are forgotten
MOST_FAILURES = 5  # in a row, some 3 seconds in all
FAST_STOP, IMMEDIATE_STOP = 20.0, 5.0  # seconds granted before the next harder signal


def lock_now(fd: int) -> bool:
    """Take the exclusive lock if it is free; tell whether we have it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def command_of(pid: int) -> str | None:
    """The command line of a process: "" when it is gone or a zombie, None when we may not know."""
    proc = Path("/proc") / str(pid)
    try:
        if Path("/proc/self/stat").exists():
            state = proc.joinpath("stat").read_text().rpartition(")")[2].split()[0]
            return "" if state == "Z" else proc.joinpath("cmdline").read_text("utf-8", "replace")
        shown = subprocess.run(
            ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return "" if "<defunct>" in shown.stdout else shown.stdout.strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError:
        return None


class Keeper:
    """Of the server of one instance, until nobody uses it any more.

    job: as embedded/server.py writes it; linger is in seconds. lock: the descriptor of the lock
    that only one keeper has.
    """

    def __init__(self, job: dict[str, Any], lock: int) -> None:
        self.instance = Path(job["instance"])
        self.data = Path(job["data"])
        self.socket_dir = Path(job["socket_dir"])
        self.command: list[str] = job["command"]
        self.account: dict[str, Any] = job["account"]  # user=, group= of Popen; empty: ourselves
        self.linger: float = job["linger"]
        self.restart: bool = job["restart"]
        self.remove: str | None = job["remove"]  # a directory to delete at the end
        self.lock = lock
        self.users = open_lock(self.instance / "users.lock")
        self.child: subprocess.Popen[bytes] | None = None
        self.adopted: int | None = None
        self.started = 0.0
        self.failures = 0
        self.crashed = False
        self.idle_since: float | None = None
        self.asked = False
        self.wake, self.waker = os.pipe()

    def run(self) -> int:
        """The exit code: 1 for a server that does not stay up."""
        self.adopt_or_start()
        while True:
            self.pause(LOOK_EVERY)
            if self.removed():
                self.stop(signal.SIGQUIT)
                if not self.instance.exists():  # else the next server uses the same socket
                    self.tidy_socket()
                return 0
            if self.unused():
                self.stop(signal.SIGQUIT if self.remove else signal.SIGINT)
                self.tidy()
                return 0
            if not self.alive() and not self.revive():
                self.tidy_socket()
                return 1

    def listen_to_signals(self) -> None:
        for fd in (self.wake, self.waker):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self.on_term)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake up
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def on_term(self, *_: object) -> None:
        self.asked = True

    def pause(self, seconds: float) -> None:
        """Until a signal comes, at the longest."""
        if select.select([self.wake], [], [], seconds)[0]:
            os.read(self.wake, 512)

    # -- what is so -----------------------------------------------------------------------

    def removed(self) -> bool:
        """Whether somebody deleted the directory under us, to start afresh."""
        try:
            there = (self.instance / "keeper.lock").stat()
        except FileNotFoundError:
            return True
        return there.st_ino != os.fstat(self.lock).st_ino

    def unused(self) -> bool:
        """Whether the last user is gone for good; then the users lock is ours."""
        asked, self.asked = self.asked, False
        if not lock_now(self.users):
            self.idle_since = None
            return False
        now = time.monotonic()
        self.idle_since = self.idle_since or now
        if asked or now - self.idle_since >= self.linger:
            return True
        fcntl.flock(self.users, fcntl.LOCK_UN)
        return False

    def alive(self) -> bool:
        if self.child is not None:
            return self.child.poll() is None
        return self.adopted is not None and self.serves_us(self.adopted)

    def serves_us(self, pid: int) -> bool:
        return str(self.data) in (command_of(pid) or "")

    def postmaster(self) -> int | None:
        """The pid of a live server on our data directory, as its own pid file tells."""
        pid = self.pid_on_file()
        return pid if pid is not None and self.serves_us(pid) else None

    def pid_on_file(self) -> int | None:
        try:
            return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    # -- what is done ---------------------------------------------------------------------

    def adopt_or_start(self) -> None:
        """Take over the server of a keeper that was killed, or start one."""
        self.adopted = self.postmaster()
        if self.adopted is None:
            self.start()
        else:
            self.say(f"took over the server with pid {self.adopted}")

    def start(self) -> None:
        self.crashed = self.crashed or self.left_traces()
        self.forget_stale_pid_file()
        self.started = time.monotonic()
        self.adopted = None
        self.child = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, cwd="/", umask=0o077, **self.account
        )

    def forget_stale_pid_file(self) -> None:
        """Remove a pid file whose pid is now another program's, which Postgres would not do.

        After a restart of a container pids are small and come again at once. As the only
        keeper we are the only one who starts servers here, so this is safe when we are
        sure that the process is no server of this data directory.
        """
        pid = self.pid_on_file()
        command = command_of(pid) if pid is not None else None
        if command is not None and str(self.data) not in command:
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def left_traces(self) -> bool:
        """Whether a server crashed; what remains of it may be in the way for a moment."""
        socket_locks = self.socket_dir.glob(".s.PGSQL.*.lock")
        return self.pid_on_file() is not None or any(socket_locks)

    def revive(self) -> bool:
        """Start the server anew after a crash; not when it was stopped, or refused to start."""
        code = self.child.returncode if self.child is not None else None
        self.crashed = self.crashed or self.left_traces()
        if not self.restart or not self.crashed or code == 0:
            return False
        if time.monotonic() - self.started > LONG_ENOUGH:
            self.failures = 0
        self.failures += 1
        if self.failures > MOST_FAILURES:
            self.say(f"the server does not stay up, exit code {code}")
            return False
        self.say(f"the server is gone, exit code {code}; starting it again")
        time.sleep(0.1 * 2 ** (self.failures - 1))  # its orphans must let go of shared memory
        self.start()
        return True

    def stop(self, first: signal.Signals) -> None:
        """End the server: as asked, then harder when it takes too long."""
        for number, seconds in (
            (first, FAST_STOP),
            (signal.SIGQUIT, IMMEDIATE_STOP),
            (signal.SIGKILL, IMMEDIATE_STOP),
        ):
            self.send(number)
            deadline = time.monotonic() + seconds
            while self.alive():
                if time.monotonic() > deadline:
                    break
                self.pause(0.02)
            else:
                return

    def send(self, number: signal.Signals) -> None:
        pid = self.child.pid if self.child is not None else self.adopted
        if pid is not None and self.alive():
            os.kill(pid, number)

    def tidy_socket(self) -> None:
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    def tidy(self) -> None:
        self.tidy_socket()
        if self.remove:
            # Out of the way at once, so that nobody moves into half a directory.
            gone = Path(self.remove).rename(f"{self.remove}.removed-{os.getpid()}")
            shutil.rmtree(gone, ignore_errors=True)

    def say(self, message: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        sys.stderr.write(f"{stamp} UTC [{os.getpid()}] keeper: {message}\n")
        sys.stderr.flush()


def main() -> int:
    job = json.loads(sys.argv[1])
    lock = open_lock(Path(job["instance"]) / "keeper.lock")
    if not taken(lock):
        return 0  # another keeper is at work already
    os.ftruncate(lock, 0)
    keeper = Keeper(job, lock)
    keeper.listen_to_signals()
    if child := os.fork():
        # Our starter goes on as soon as lock and pid are there; the child belongs to nobody,
        # so that no zombie and no signal to a process group has to do with it.
        os.pwrite(lock, f"{child}\n".encode(), 0)
        os._exit(0)
    os.setsid()
    return keeper.run()


def taken(lock: int) -> bool:
    """Take the lock; again for a moment, for somebody may just be looking whether it is free."""
    for _ in range(20):
        if lock_now(lock):
            return True
        time.sleep(0.02)
    return False


if __name__ == "__main__":
    sys.exit(main())
