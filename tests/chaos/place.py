"""Where a run takes place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.workload import Jobs, Workload
from tests.postgres import Cluster


@dataclass(frozen=True)
class Place:
    """An empty migrated database and a directory of its own.

    cluster: the server, for runs that stop it. workload: makes the table to work on. sql: what
    the workers read in the place of sql/.
    """

    url: str
    directory: Path
    cluster: Cluster | None = None
    workload: Callable[[], Workload] = Jobs
    sql: Path | None = None
