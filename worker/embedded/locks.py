"""A lock on a file that goes away with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import weakref
from pathlib import Path

TRY_EVERY = 0.02  # seconds


class FileLock:
    """flock on `path`, shared or exclusive, bounded in time.

    No process that we start inherits it: the descriptor is close-on-exec, and a plain
    fork (multiprocessing, prefork servers) closes its copy at once. One object is for one
    thread; two objects exclude each other even within a process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        _every_lock.add(self)

    @property
    def held(self) -> bool:
        return self._fd is not None

    @property
    def intact(self) -> bool:
        """Whether we hold it and the file is still the one that others find there."""
        return self._fd is not None and self._names(self._fd)

    def shared(self, timeout: float) -> None:
        """Hold it together with others. Raises TimeoutError; nothing if held already."""
        self._take(fcntl.LOCK_SH, timeout)

    def exclusive(self, timeout: float) -> None:
        """Hold it alone. Raises TimeoutError; nothing if held already."""
        self._take(fcntl.LOCK_EX, timeout)

    def free(self) -> bool:
        """Whether nobody holds it at this moment."""
        if self.held:
            return False
        try:
            self._take(fcntl.LOCK_EX, 0)
        except TimeoutError:
            return False
        self.release()
        return True

    def alone(self) -> bool:
        """Whether nobody else holds it together with us; else it may be ours no longer."""
        assert self._fd is not None, "only for a lock that is held"
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)  # also for a copy that a fork has not closed yet
        os.close(fd)

    def _take(self, how: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._fd is None:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                self._fd = fd if self._try(fd, how) else None
            finally:
                if self._fd is None:
                    os.close(fd)
            if self._fd is None:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{self.path} is locked by another process")
                time.sleep(TRY_EVERY)

    def _try(self, fd: int, how: int) -> bool:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return self._names(fd)

    def _names(self, fd: int) -> bool:
        try:
            return self.path.stat().st_ino == os.fstat(fd).st_ino
        except FileNotFoundError:
            return False

    def _forget(self) -> None:
        """In a forked child: the lock is the parent's, so close our copy and no more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


_every_lock: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_every_lock):
        lock._forget()


os.register_at_fork(after_in_child=_forget_all)
