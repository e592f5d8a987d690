"""Where the embedded database lies: one directory for each project, one in it for each version."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.embedded.account import Account
from worker.errors import EmbeddedPostgresError

log = logging.getLogger("worker.embedded")

MARKS = ("pyproject.toml", ".git", "Procfile")
# Public, so whatever we make there is checked to be ours; not TMPDIR, which differs between
# the processes of one user, while they must find the same directory.
SHORTEST = "/tmp"  # noqa: S108
LASTING = "/var/tmp"  # noqa: S108
LONGEST_SOCKET_DIR = 80  # bytes; the whole path of a socket may have 103 to 107


@dataclass(frozen=True)
class Instance:
    """The directory of one server, and what is in it."""

    path: Path

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def log(self) -> Path:
        return self.path / "postgres.log"

    @property
    def start_lock(self) -> Path:
        return self.path / "start.lock"

    @property
    def users_lock(self) -> Path:
        return self.path / "users.lock"

    @property
    def keeper_lock(self) -> Path:
        return self.path / "keeper.lock"

    @property
    def major(self) -> int | None:
        """The version that wrote the data; None before the first start."""
        try:
            return int((self.data / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None


def project_root(start: Path) -> Path:
    """The nearest directory from `start` upwards that looks like a project, else `start`."""
    for directory in (start, *start.parents):
        if any((directory / mark).exists() for mark in MARKS):
            return directory
    return start


def default_home() -> Path:
    """DUEROW_HOME, else `.duerow` in the project's root."""
    if named := os.environ.get("DUEROW_HOME"):
        return Path(named).expanduser().absolute()
    return project_root(Path.cwd()) / ".duerow"


def usable_home(home: Path, account: Account) -> Path:
    """`home`, made if need be, or a stand-in that both we and the server can use.

    A home may lie where the server's account cannot go (/root), or where we may not write
    (a read-only checkout). Then the stand-in under /var/tmp is the same for every process of
    ours that asks for the same home; the log says where it is, as a warning the first time.
    """
    why = _why_unusable(home, account)
    if why:
        new = not stand_in(home).exists()
        home = _make_stand_in(home)
        level = logging.WARNING if new else logging.INFO
        log.log(level, "%s; the embedded database is in %s", why, home)
    _make(home)
    ignore = home / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return home


def instances(home: Path) -> list[Instance]:
    """Those with data, the newest version first."""
    found = [Instance(path) for path in home.glob("postgres-*")]
    return sorted(
        (one for one in found if one.major is not None), key=lambda i: i.major or 0, reverse=True
    )


def make_instance(path: Path) -> Instance:
    _make(path)
    return Instance(path)


def make_socket_dir(instance: Instance, account: Account) -> Path:
    """A short directory that only the server's account can enter: that is all its security.

    The same for the same instance as long as nobody else has taken the name, so that a URL
    stays good when the server comes back.
    """
    name = f"duerow-{_digest(instance.path)}"
    for base in _short_places():
        directory = base / name
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            if not _private(directory, account.uid):
                directory = Path(tempfile.mkdtemp(prefix="duerow-", dir=base))
        except OSError:
            continue
        account.owns(directory)
        return directory
    raise EmbeddedPostgresError(
        "There is no directory for the socket of the embedded Postgres.",
        why=f"tried {', '.join(map(str, _short_places()))}: not writable, or longer than "
        f"{LONGEST_SOCKET_DIR} bytes",
        hint="export TMPDIR=/a/short/writable/directory",
    )


def _short_places() -> Iterator[Path]:
    for place in (SHORTEST, tempfile.gettempdir(), LASTING):
        if len(os.fsencode(place)) < LONGEST_SOCKET_DIR - 32:
            yield Path(place)


def _private(directory: Path, uid: int) -> bool:
    status = directory.lstat()
    mode = stat.S_IMODE(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid and mode == 0o700


def _why_unusable(home: Path, account: Account) -> str:
    there = next(path for path in (home, *home.parents) if path.exists())
    if not account.reaches(there):
        return f"Postgres cannot run as root, and uid {account.uid} cannot enter {there}"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"We may not write in {there}"
    return ""


def stand_in(home: Path) -> Path:
    """The directory in a public place that serves instead of a home that cannot be used."""
    base = LASTING if os.access(LASTING, os.W_OK | os.X_OK) else tempfile.gettempdir()
    return Path(base) / f"duerow-{os.geteuid()}-{_digest(home)}"


def _make_stand_in(home: Path) -> Path:
    """It must be ours alone: whoever else took its name is refused."""
    path = stand_in(home)
    _make(path)
    status = path.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise _unwritable(path, f"it belongs to uid {status.st_uid}, or others may write in it")
    return path


def _make(path: Path) -> None:
    """A directory that the server's account may pass through, but not change."""
    try:
        for missing in reversed([one for one in (path, *path.parents) if not one.exists()]):
            with contextlib.suppress(FileExistsError):  # another process was faster
                missing.mkdir()
                missing.chmod(0o711)  # whatever the umask is
    except OSError as error:
        raise _unwritable(path, str(error)) from error
    if not stat.S_ISDIR(path.lstat().st_mode) or not os.access(path, os.W_OK):
        raise _unwritable(path, "no directory, or not writable for us")


def _unwritable(path: Path, why: str) -> EmbeddedPostgresError:
    return EmbeddedPostgresError(
        f"The embedded database cannot be kept in {path}",
        why=why,
        hint="export DUEROW_HOME=/some/directory/of/yours   (or set DATABASE_URL)",
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
