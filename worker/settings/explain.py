"""What pydantic found wrong with settings, said so that the reader can correct it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings

from worker.errors import SettingsError
from worker.settings.sources import near, origin_of, sources_of
from worker.url import redact

LONGEST_VALUE = 60
"""Characters of a bad value that are quoted."""


def explained(
    settings: type[BaseSettings], flags: Mapping[str, Any], error: ValidationError
) -> SettingsError:
    """One error that lists each bad value, why it is bad, and who said it."""
    sources = sources_of(settings, flags)
    troubles = error.errors(include_url=False)
    names = list(dict.fromkeys(str(trouble["loc"][0]) for trouble in troubles))
    origins = dict.fromkeys(origin_of(name, sources) for name in names)
    lines = [
        f"{trouble['loc'][0]} ({origin_of(str(trouble['loc'][0]), sources)}): "
        f"{_trouble(settings, trouble)}"
        for trouble in troubles
    ]
    return SettingsError(
        f"{len(names)} settings are not valid" if len(names) > 1 else "A setting is not valid",
        why="\n        ".join(lines),
        hint=f"correct {' and '.join(origins)}",
    )


def _trouble(settings: type[BaseSettings], trouble: ErrorDetails) -> str:
    name = str(trouble["loc"][0])
    if trouble["type"] == "extra_forbidden":
        return f"there is no such setting{near(name, settings.model_fields)}"
    why = _why(settings, trouble)
    if name.endswith("_url"):
        return redact(why)
    value = redact(repr(trouble["input"]))
    cut = value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 3] + "..."
    return f"{cut}: {why}"


def _why(settings: type[BaseSettings], trouble: ErrorDetails) -> str:
    """pydantic's reason, or ours where its own speaks of patterns and units."""
    if trouble["type"] == "string_pattern_mismatch":
        about = settings.model_fields[str(trouble["loc"][0])].description
        return f"not of the right form; it is: {about}"
    if trouble["type"].startswith("byte_size"):
        return "a size is written like 4096, 256KiB or 1MB"
    return re.sub(r"^(Value error, )?(Input )?", "", trouble["msg"])
