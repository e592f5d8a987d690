"""The user's own Alembic project: where its revisions lie, what its heads are, and a new one.

Nothing of it is run but the revision files, which Alembic imports to learn their order; env.py is
left alone, and no database is asked.
"""

from __future__ import annotations

import argparse
import datetime as dt
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from alembic.util import rev_id

from worker.errors import UsageError
from worker.tables.revision import MARK, Heading, mark, revision
from worker.tables.step import Step

INI = "alembic.ini"


class Project:
    """directory: the one with alembic.ini, or with env.py and versions/; None: the working
    directory's. Raises UsageError where there is none, or its revisions cannot be read."""

    def __init__(self, directory: Path | None = None) -> None:
        with _explained(directory or Path()):
            self._scripts = ScriptDirectory.from_config(_config(directory))
            self._heads = tuple(self._scripts.get_heads())
            self._revisions = list(self._scripts.walk_revisions())

    @property
    def heads(self) -> tuple[str, ...]:
        return self._heads

    def written(self, verb: str, name: str, steps: Sequence[Step]) -> Path | None:
        """The revision that says these very steps, unless a later one of ours takes them back."""
        wanted = mark(verb, name, steps)
        for script in self._revisions:
            said = _mark_of(script, name)
            if said is not None:
                return Path(script.path) if said == wanted else None
        return None

    def write(
        self, command: str, verb: str, name: str, steps: Sequence[Step], head: str | None = None
    ) -> Path:
        """Writes a revision; its path. head: what it follows, where there are several heads.

        Raises UsageError.
        """
        parents = self._parents(head)
        made: Script | None
        with _explained(Path(self._scripts.dir)):
            made = self._scripts.generate_revision(
                rev_id(), f"duerow {verb} {name}", head=list(parents) or "base"
            )
        assert made is not None
        path = Path(made.path)
        heading = Heading(made.revision, parents, command, verb, name, dt.datetime.now())
        try:
            text = revision(heading, steps)
            compile(text, str(path), "exec")
            path.write_text(text, "utf-8")
        except BaseException:
            path.unlink()
            raise
        return path

    def _parents(self, head: str | None) -> tuple[str, ...]:
        if head is not None:
            with _explained(Path(self._scripts.dir)):
                found = self._scripts.get_revisions(head)
            return tuple(script.revision for script in found)
        if len(self._heads) > 1:
            raise UsageError(
                f"the revisions in {self._scripts.dir} have {len(self._heads)} heads",
                why=f"the new one could follow any of {', '.join(sorted(self._heads))}",
                hint=f"--head {min(self._heads)}, or --head heads to follow (and merge) them all",
            )
        return self._heads


def _mark_of(script: Script, name: str) -> str | None:
    """The mark in a revision's file, if it is one of ours about `name`."""
    ours = tuple(f"{MARK}{verb} {' '.join(name.split())} " for verb in ("add", "remove"))
    for line in Path(script.path).read_text("utf-8", "replace").splitlines():
        if line.startswith(ours):
            return line
    return None


def _config(directory: Path | None) -> Config:
    quiet = argparse.Namespace(quiet=True)
    place = directory or Path()
    if (place / INI).is_file():
        return _located(Config(str(place / INI), cmd_opts=quiet), place)
    if _in_pyproject(place):
        return _located(Config(toml_file=str(place / "pyproject.toml"), cmd_opts=quiet), place)
    if (place / "versions").is_dir():
        return _of_versions(place, quiet)
    raise UsageError(
        f"there is no Alembic project in {place.absolute()}",
        why=f"neither {INI}, nor [tool.alembic] in pyproject.toml, nor versions/ lies there",
        hint="--alembic-dir PATH, or --sql to get SQL instead (worker tables add ... --sql | psql)",
    )


def _of_versions(place: Path, quiet: argparse.Namespace) -> Config:
    """A directory with versions/: the ini of the working directory counts if it leads there."""
    if Path(INI).is_file():
        config = Config(INI, cmd_opts=quiet)
        location = config.get_main_option("script_location")
        if location is not None and Path(location).resolve() == place.resolve():
            return config
    config = Config(cmd_opts=quiet)
    config.set_main_option("script_location", str(place).replace("%", "%%"))
    return config


def _located(config: Config, place: Path) -> Config:
    """A relative script_location counts from the working directory; or else from the ini's own."""
    location = config.get_main_option("script_location")
    if location and not Path(location).exists() and (place / location).exists():
        config.set_main_option("script_location", str(place / location).replace("%", "%%"))
    return config


def _in_pyproject(place: Path) -> bool:
    try:
        said = tomllib.loads((place / "pyproject.toml").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return "script_location" in said.get("tool", {}).get("alembic", {})


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    """Whatever goes wrong in there is the project's: its files are Python and are imported."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"the Alembic project in {place.absolute()} cannot be read",
            why=f"{type(error).__name__}: {' '.join(str(error).split())}",
            hint="alembic heads   (must work there)",
        ) from error
