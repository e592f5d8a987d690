"""The revisions on disk, as Alembic reads them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory

from worker.assets import alembic_directory
from worker.errors import UsageError


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema: its id, and its title in a sentence."""

    id: str
    title: str


def config(
    attributes: Mapping[str, Any] | None = None, output: io.StringIO | None = None
) -> Config:
    """What Alembic needs to find our revisions; no alembic.ini, nothing on stdout."""
    config = Config(stdout=io.StringIO(), output_buffer=output)
    config.set_main_option("script_location", str(alembic_directory()).replace("%", "%%"))
    config.attributes.update(attributes or {})
    return config


def known() -> tuple[Revision, ...]:
    """Every revision, the oldest first."""
    scripts = ScriptDirectory.from_config(config())
    found = [Revision(one.revision, one.doc.rstrip(".")) for one in scripts.walk_revisions()]
    return tuple(reversed(found))


def position(name: str) -> int:
    """How many revisions a database at `name` has: 0 for "base", all of them for "head".

    Raises UsageError for a name that is neither of these nor a revision's id.
    """
    ids = ["base", *(revision.id for revision in known()), "head"]
    if name not in ids:
        raise UsageError(
            f"There is no revision {name!r}",
            why=f"this version knows {', '.join(ids)}",
            hint="worker db status",
        )
    return min(ids.index(name), len(ids) - 2)
