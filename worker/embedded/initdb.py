"""Making the data directory of an embedded server, all or nothing."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from worker.embedded.account import Account
from worker.embedded.binaries import Binaries
from worker.embedded.home import Instance
from worker.errors import EmbeddedPostgresError

USER = DATABASE = "duerow"

# For a developer's machine: small, but room for many workers. fsync stays on.
CONFIGURATION = """
# --- Duerow's own, for a developer's machine; yours to change ---
max_connections = 200
shared_buffers = 128MB
timezone = 'UTC'
log_timezone = 'UTC'
"""


def initialize(instance: Instance, binaries: Binaries, account: Account) -> None:
    """Make `instance.data` with the role and the database `duerow`, in UTF-8, locale C.UTF-8.

    It is prepared beside its place and moved there when whole, so a process that is killed
    meanwhile leaves no half. Call it under the start lock.
    Raises EmbeddedPostgresError with what initdb said.
    """
    fresh = Path(tempfile.mkdtemp(prefix="data.", dir=instance.path))
    account.owns(fresh)
    try:
        _run(_initdb(binaries, fresh), account)
        with (fresh / "postgresql.conf").open("a") as settings:
            settings.write(CONFIGURATION)
        _run(_single_user(binaries, fresh), account, f"CREATE DATABASE {DATABASE};\n")
        fresh.rename(instance.data)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def clear_halves(instance: Instance) -> None:
    """Remove what killed starters left; an orphaned initdb may go on for a second after one."""
    for half in instance.path.glob("data.*"):
        shutil.rmtree(half, ignore_errors=True)


def _initdb(binaries: Binaries, data: Path) -> list[str]:
    # Only local sockets are trusted: they lie in a directory that is the account's alone.
    return [
        binaries.initdb,
        *("-D", str(data), "-U", USER, "-E", "UTF8"),
        *("--auth-local=trust", "--auth-host=reject"),
        *_locale(binaries),
    ]


def _locale(binaries: Binaries) -> list[str]:
    if binaries.major >= 17:  # its own C.UTF-8, the same on every system
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C.UTF-8" if _system_has_c_utf8() else "--locale=C"]


def _system_has_c_utf8() -> bool:
    try:
        known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return False
    return any(name.lower() in ("c.utf8", "c.utf-8") for name in known.stdout.split())


def _single_user(binaries: Binaries, data: Path) -> list[str]:
    return [binaries.postgres, "--single", "-D", str(data), "-F", "postgres"]


def _run(command: list[str], account: Account, text: str = "") -> None:
    try:
        subprocess.run(
            command,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            **account.popen,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stdout if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise EmbeddedPostgresError(
            "The embedded Postgres could not make its data directory.",
            why="; ".join(said.strip().splitlines()[-3:]),
            hint="df -h . && " + " ".join(command),
        ) from error
