"""The user's own Alembic project: where its revisions lie, what its heads are, and a new one.

Nothing of it is run but the revision files, which Alembic imports to learn their order; env.py is
left alone, and no database is asked.
"""

from __future__ import annotations

import argparse
import datetime as dt
import tomllib
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from alembic.util import rev_id

from worker.errors import UsageError
from worker.tables.revision import MARK, Heading, mark, revision
from worker.tables.step import Plan

INI = "alembic.ini"


class Project:
    """directory: the one with alembic.ini, or with env.py and versions/; None: the working
    directory's. Raises UsageError where there is none, or its revisions cannot be read."""

    def __init__(self, directory: Path | None = None) -> None:
        self._place = (directory or Path()).absolute()
        with self._inside():
            self._scripts = ScriptDirectory.from_config(_config(self._place))
            self._heads = tuple(self._scripts.get_heads())
            self._revisions = list(self._scripts.walk_revisions())

    @property
    def heads(self) -> tuple[str, ...]:
        return self._heads

    def written(self, verb: str, name: str, plan: Plan) -> Path | None:
        """The revision that says these very steps, unless a later one of ours takes them back."""
        wanted = mark(verb, name, plan)
        for script in self._revisions:
            said = _mark_of(self._path(script), name)
            if said is not None:
                return self._path(script) if said == wanted else None
        return None

    def write(
        self, command: str, verb: str, name: str, plan: Plan, head: str | None = None
    ) -> Path:
        """Writes a revision; its path. head: what it follows, where there are several heads.

        Raises UsageError.
        """
        parents = self._parents(head)
        made: Script | None
        with self._inside():
            made = self._scripts.generate_revision(
                rev_id(), f"duerow {verb} {name}", head=list(parents) or "base"
            )
        assert made is not None
        path = self._path(made)
        heading = Heading(made.revision, parents, command, verb, name, dt.datetime.now())
        try:
            text = revision(heading, plan)
            compile(text, str(path), "exec")
            path.write_text(text, "utf-8")
        except BaseException:
            path.unlink()
            raise
        return path

    def _parents(self, head: str | None) -> tuple[str, ...]:
        if head is not None:
            with self._inside():
                found = self._scripts.get_revisions(head)
            return tuple(script.revision for script in found)
        if len(self._heads) > 1:
            raise UsageError(
                f"the Alembic project in {self._place} has {len(self._heads)} heads",
                why=f"the new one could follow any of {', '.join(sorted(self._heads))}",
                hint=f"--head {min(self._heads)}, or --head heads to follow (and merge) them all",
            )
        return self._heads

    def _path(self, script: Script) -> Path:
        return self._place / script.path

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """In the project's directory, as its users run Alembic. Whatever goes wrong there is the
        project's: its files are Python and are imported."""
        try:
            with chdir(self._place):
                yield
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"the Alembic project in {self._place} cannot be read",
                why=f"{type(error).__name__}: {' '.join(str(error).split())}",
                hint="alembic heads   (must work there)",
            ) from error


def _mark_of(path: Path, name: str) -> str | None:
    """The mark in a revision's file, if it is one of ours about `name`."""
    ours = tuple(f"{MARK}{verb} {' '.join(name.split())} " for verb in ("add", "remove"))
    for line in path.read_text("utf-8", "replace").splitlines():
        if line.startswith(ours):
            return line
    return None


def _config(place: Path) -> Config:
    quiet = argparse.Namespace(quiet=True)
    if (place / INI).is_file():
        return Config(str(place / INI), cmd_opts=quiet)
    if _in_pyproject(place):
        return Config(toml_file=str(place / "pyproject.toml"), cmd_opts=quiet)
    if (place / "versions").is_dir():
        return _of_versions(place, quiet)
    raise UsageError(
        f"there is no Alembic project in {place}",
        why=f"neither {INI}, nor [tool.alembic] in pyproject.toml, nor versions/ lies there",
        hint="--alembic-dir PATH, or --sql to get SQL instead (... --sql | worker db psql)",
    )


def _of_versions(place: Path, quiet: argparse.Namespace) -> Config:
    """A directory with versions/: the ini beside or above it counts, for the names of files."""
    for ini in (Path(INI).absolute(), place.parent / INI):
        if ini.is_file():
            config = Config(str(ini), cmd_opts=quiet)
            location = config.get_main_option("script_location")
            if location is not None and (ini.parent / location).resolve() == place.resolve():
                break
    else:
        config = Config(cmd_opts=quiet)
    config.set_main_option("script_location", str(place).replace("%", "%%"))
    return config


def _in_pyproject(place: Path) -> bool:
    try:
        said = tomllib.loads((place / "pyproject.toml").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return "script_location" in said.get("tool", {}).get("alembic", {})
