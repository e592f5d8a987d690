"""Which account runs the server: Postgres refuses root, so root lends it another one."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.embedded.binaries import Binaries
from worker.errors import EmbeddedPostgresError

UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """A uid and gid to run the server's programs under; ours, unless we are root."""

    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        return self.uid == os.geteuid()

    @property
    def popen(self) -> dict[str, Any]:
        """The arguments of subprocess.Popen that make a program run under this account."""
        if self.is_ours:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def owns(self, path: Path) -> None:
        """Make this account the owner of a path of ours."""
        if not self.is_ours:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def reaches(self, path: Path) -> bool:
        """Whether the account may enter the directory, or run the program, at `path`."""
        if self.is_ours:
            return os.access(path, os.X_OK)
        test = ["/bin/sh", "-c", 'test -x "$0"', str(path)]
        try:
            return subprocess.run(test, cwd="/", check=False, **self.popen).returncode == 0
        except PermissionError as error:
            raise EmbeddedPostgresError(
                "We are root, but may not start Postgres under another account.",
                why=f"uid {self.uid}: {error}",
                hint="run this as an ordinary user, or set DATABASE_URL",
            ) from error


def server_account() -> Account:
    """Ourselves; for root the account `postgres`, or `nobody`.

    Raises EmbeddedPostgresError when there is none, or ours has no name (initdb asks for it).
    """
    if os.geteuid() != 0:
        return _ourselves()
    for name in UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        "We are root, and Postgres does not run as root.",
        why=f"there is no account {' or '.join(UNPRIVILEGED)} to run it under",
        hint="useradd --system postgres   (or run this as an ordinary user)",
    )


def owner_of(data: Path) -> Account:
    """The account that an existing data directory belongs to."""
    status = data.stat()
    if os.geteuid() != 0 and status.st_uid != os.geteuid():
        raise EmbeddedPostgresError(
            f"The embedded database in {data} belongs to another account.",
            why=f"it is owned by uid {status.st_uid}, we are uid {os.geteuid()}",
            hint=f"run this as that account, or: sudo chown -R $(id -u) {data.parent.parent}",
        )
    return server_account() if status.st_uid == 0 else Account(status.st_uid, status.st_gid)


def _ourselves() -> Account:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise EmbeddedPostgresError(
            f"Postgres cannot be started by uid {os.geteuid()}.",
            why="this uid has no name in /etc/passwd, which initdb needs",
            hint="run this as an account with a name, or set DATABASE_URL",
        ) from error
    return Account(os.geteuid(), os.getegid())


def runnable(binaries: Binaries, account: Account, copies: Path) -> Binaries:
    """These binaries, or a copy of them under `copies` when the account cannot reach them.

    Root's own virtual environment often lies under /root, where nobody else may look.
    Takes some 30 MB and a tenth of a second, once for each version.
    """
    if account.reaches(binaries.directory / "postgres"):
        return binaries
    copy = copies / f"programs-{binaries.version}"
    prefix = binaries.directory.parent
    if not copy.exists():
        partial = copies / f"{copy.name}.{os.getpid()}"
        for directory in (prefix, _wheel_libraries(prefix)):
            if directory.is_dir():
                _copy(directory, partial / directory.relative_to(prefix.parent.parent))
        partial.rename(copy)
    there = copy / binaries.directory.relative_to(prefix.parent.parent)
    return Binaries(there, binaries.version, binaries.origin)


def _wheel_libraries(prefix: Path) -> Path:
    """Where a wheel's programs look for their shared libraries, relative to themselves."""
    return prefix.parent.with_name(prefix.parent.name + ".libs")


def _copy(directory: Path, to: Path) -> None:
    shutil.copytree(directory, to, ignore=shutil.ignore_patterns("include", "*.a"))
