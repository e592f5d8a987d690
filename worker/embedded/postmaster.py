"""What a running server tells about itself: its pid file, its socket, its log."""

from __future__ import annotations

from urllib.parse import quote

from psycopg.pq import PGconn, Ping

from worker.embedded.home import Instance
from worker.embedded.initdb import DATABASE, USER
from worker.embedded.locks import FileLock


def is_kept(instance: Instance) -> bool:
    """Whether a keeper lives, and so a server runs, or is just starting or stopping."""
    return not FileLock(instance.keeper_lock).free()


def _pid_file(instance: Instance) -> list[str]:
    try:
        return (instance.data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def pid_of(instance: Instance) -> int | None:
    """Of the server that runs, or of one that was killed."""
    lines = _pid_file(instance)
    return int(lines[0]) if lines else None


def url_of(instance: Instance) -> str | None:
    """Where the server says that it listens, once it says that it is ready."""
    lines = _pid_file(instance)
    if len(lines) < 8 or lines[7].strip() != "ready":
        return None
    return f"postgresql://{USER}@/{DATABASE}?host={quote(lines[4])}&port={lines[3]}"


def answers(url: str) -> bool:
    """Whether it takes connections: a server once ready may have been killed since."""
    return PGconn.ping(url.encode()) == Ping.OK  # also when all connections are taken


def last_words(instance: Instance) -> str:
    """The line of the log that tells best why the server ended."""
    try:
        lines = instance.log.read_text("utf-8", "replace").splitlines()[-30:]
    except FileNotFoundError:
        return "it left no log"
    telling = [line for line in lines if "FATAL" in line or "could not" in line]
    return (telling or lines or ["it left an empty log"])[-1]
