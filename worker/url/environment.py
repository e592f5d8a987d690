"""What the environment says about the database: PG* variables and the service file."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from worker.errors import InvalidURL
from worker.url.parameters import PARAMETERS


def home(environ: Mapping[str, str]) -> Path:
    """The home directory as libpq finds it: HOME, else that of the effective user."""
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return Path("/nonexistent")


def operating_system_user() -> str | None:
    """Name of the effective user, libpq's default; None when it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


def variables(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What the PG* variables say: name -> (value, variable). An empty one says nothing."""
    return {
        name: (environ[parameter.variable], parameter.variable)
        for name, parameter in PARAMETERS.items()
        if parameter.variable and environ.get(parameter.variable)
    }


def service(name: str, environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The `[name]` section of the service file: name -> (value, where). Raises InvalidURL."""
    for path in _service_files(environ):
        section = _section(path, name)
        if section is not None:
            return {key: (value, f"service {name} of {path}") for key, value in section.items()}
    files = " nor ".join(str(path) for path in _service_files(environ))
    raise InvalidURL(
        f"The database service {name!r} is not defined",
        why=f"no section [{name}] in {files}",
        hint="add the section, set PGSERVICEFILE, or leave the service out",
    )


def _service_files(environ: Mapping[str, str]) -> list[Path]:
    own = environ.get("PGSERVICEFILE")
    files = [Path(own) if own else home(environ) / ".pg_service.conf"]
    if system := environ.get("PGSYSCONFDIR"):
        files.append(Path(system) / "pg_service.conf")
    return files


def _section(path: Path, name: str) -> dict[str, str] | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return None
    found: dict[str, str] | None = None
    for line in map(str.strip, lines):
        if line.startswith("["):
            if found is not None:
                break
            if line == f"[{name}]":
                found = {}
        elif found is not None and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key.strip()] = value.strip()
    return found
