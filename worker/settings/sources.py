"""Where settings come from: flags, the environment, pyproject.toml, the platform.

Each source tells which settings it says, and in what words, so that origins can be shown.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
)

from worker.duration import parse_duration
from worker.errors import SettingsError
from worker.url import DatabaseURL

PREFIX = "DUEROW_"
RAILWAY_DEFAULT = 3.0
"""Seconds from SIGTERM to SIGKILL on Railway unless the service asks for more."""
RAILWAY_DRAINING = "RAILWAY_DEPLOYMENT_DRAINING_SECONDS"
RAILWAY_SILENT = f"Railway, as {RAILWAY_DRAINING} is not set"
MARGIN = 2.0
"""Seconds kept back for releasing rows and closing connections."""


SWITCHES = ("UVLOOP", "FORK", "HOME", "ACTOR", "PG_BIN")
"""Variables that are no settings, but are read."""


class Source(Protocol):
    """Which settings it says, and who that is in words."""

    def says(self, name: str) -> bool: ...

    def origin(self, name: str) -> str: ...


class Flags(InitSettingsSource):
    """What the command line, or the caller of `Settings`, says."""

    def says(self, name: str) -> bool:
        return name in self.init_kwargs

    def origin(self, name: str) -> str:
        return f"flag --{name.replace('_', '-')}"


class Environment(EnvSettingsSource):
    """`DUEROW_*`, and `DATABASE_URL` when there is no `DUEROW_DATABASE_URL`."""

    def __call__(self) -> dict[str, Any]:
        said = super().__call__()
        if "database_url" not in said and os.environ.get("DATABASE_URL"):
            said["database_url"] = os.environ["DATABASE_URL"]
        return said

    def says(self, name: str) -> bool:
        return name in self._said

    def origin(self, name: str) -> str:
        wanted = f"{PREFIX}{name}".upper()
        for variable, value in os.environ.items():
            if value and variable.upper().split("__")[0] == wanted:
                return f"env {variable}"
        return "env DATABASE_URL"

    @cached_property
    def _said(self) -> dict[str, Any]:
        return self()


class Pyproject(PyprojectTomlConfigSettingsSource):
    """`[tool.duerow]` of the nearest pyproject.toml that has one; `-` in keys is `_`."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        self._file = _nearest()
        super().__init__(settings, self._file or Path(os.devnull))

    def __call__(self) -> dict[str, Any]:
        return {name.replace("-", "_"): value for name, value in super().__call__().items()}

    def says(self, name: str) -> bool:
        return name in self._said

    def origin(self, name: str) -> str:
        return f"{self._file} [tool.duerow]"

    @cached_property
    def _said(self) -> dict[str, Any]:
        return self()


class Platform(PydanticBaseSettingsSource):
    """What the place that we run in says by its own variables; anything else goes before it."""

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, (value, _) in self._said.items()}

    def says(self, name: str) -> bool:
        return name in self._said

    def origin(self, name: str) -> str:
        return self._said[name][1]

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self().get(field_name), field_name, False

    @cached_property
    def _said(self) -> dict[str, tuple[Any, str]]:
        return {**_railway_grace(), **_libpq_url()}


def sources_of(
    settings: type[BaseSettings], flags: Mapping[str, Any]
) -> tuple[Flags, Environment, Pyproject, Platform]:
    """All sources, the one that wins first. Raises SettingsError if one cannot be read."""
    given = Flags(settings, dict(flags))
    return given, Environment(settings), Pyproject(settings), Platform(settings)


def origin_of(name: str, sources: Iterable[Source]) -> str:
    """Who says that setting: the first source that does, else `default`."""
    return next((source.origin(name) for source in sources if source.says(name)), "default")


def _railway_grace() -> dict[str, tuple[float, str]]:
    if not os.environ.get("RAILWAY_ENVIRONMENT"):
        return {}
    try:
        draining = parse_duration(os.environ[RAILWAY_DRAINING])
    except KeyError:
        return {"grace": (_less_margin(RAILWAY_DEFAULT), RAILWAY_SILENT)}
    except ValueError as error:
        raise SettingsError(
            f"The variable {RAILWAY_DRAINING} is not valid",
            why=str(error),
            hint=f"set {RAILWAY_DRAINING}=30 in the service's variables",
        ) from None
    return {"grace": (_less_margin(draining), f"env {RAILWAY_DRAINING}")}


def _less_margin(seconds: float) -> float:
    """What is left for handlers; half of it when the margin would take more."""
    return max(seconds - MARGIN, seconds / 2)


def _libpq_url() -> dict[str, tuple[DatabaseURL, str]]:
    """psql's variables, when one of them says where the server is."""
    for variable in ("PGHOST", "PGHOSTADDR", "PGSERVICE"):
        if os.environ.get(variable):
            return {"database_url": (DatabaseURL.from_environment(), f"env {variable}")}
    return {}


def _nearest() -> Path | None:
    """The first pyproject.toml with `[tool.duerow]`, from the working directory upwards."""
    here = Path.cwd()
    for directory in (here, *here.parents):
        file = directory / "pyproject.toml"
        if file.is_file() and "duerow" in _toml(file).get("tool", {}):
            return file
    return None


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            f"{file} cannot be read", why=str(error), hint="correct the file"
        ) from None


def warnings_of(settings: type[BaseSettings], origins: Mapping[str, str]) -> Iterator[str]:
    """What is no error but deserves a word at start."""
    yield from _unknown_variables(settings)
    if RAILWAY_SILENT in origins.values():
        yield (
            f"Railway kills this worker {RAILWAY_DEFAULT:g} s after it asks it to stop; "
            f"set {RAILWAY_DRAINING}=30 in the service's variables"
        )


def _unknown_variables(settings: type[BaseSettings]) -> Iterator[str]:
    """`DUEROW_*` variables that no setting reads.

    No error: while a release rolls out, the old version meets the new one's variables.
    """
    names = [f"{PREFIX}{name.upper()}" for name in (*settings.model_fields, *SWITCHES)]
    for variable in sorted(os.environ):
        upper = variable.upper()
        if upper.startswith(PREFIX) and upper.split("__")[0] not in names:
            yield f"{variable} means nothing and is not read{near(upper, names)}"


def near(name: str, names: Iterable[str]) -> str:
    """`; did you mean x?` if one of the names is alike, else nothing."""
    found = difflib.get_close_matches(name, list(names), 1, 0.7)
    return f"; did you mean {found[0]}?" if found else ""
