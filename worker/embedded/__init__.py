"""A Postgres of the project's own, for when no database URL is given.

`binaries` finds the programs, `home` the directory, `account` who may run them, `choice` puts
these three together, `initdb` makes the data, `server` is what callers use, and `keeper` the
process that runs the server and ends it after its last user.
"""

from __future__ import annotations

from worker.embedded.binaries import Binaries, find_binaries
from worker.embedded.server import EmbeddedPostgres, Status

__all__ = ["Binaries", "EmbeddedPostgres", "Status", "find_binaries"]
