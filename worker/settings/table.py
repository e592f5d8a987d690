"""Settings as people read them: rows for `worker config show`, a table for the manual."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ByteSize

from worker.duration import format_duration
from worker.settings.model import Settings


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting: its value as it would be written, passwords masked, and who said it."""

    name: str
    value: str
    origin: str
    about: str


def setting_rows(settings: Settings) -> list[SettingRow]:
    """All settings, in the order of their definition."""
    return [
        SettingRow(name, shown(getattr(settings, name)), origin, _about(name))
        for name, origin in settings.origins().items()
    ]


def settings_table() -> str:
    """A Markdown table of all settings and their defaults."""
    lines = ["| setting | variable | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = shown(field.default)
        lines.append(f"| `{name}` | `DUEROW_{name.upper()}` | `{default}` | {_about(name)} |")
    return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    """A value as it would be written; floats are durations."""
    if value is None:
        return "none"
    if isinstance(value, ByteSize):
        return _size(value)
    if isinstance(value, float):
        return format_duration(value)
    if isinstance(value, tuple):
        return ",".join(value) or "*"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _size(count: int) -> str:
    """In the largest unit that leaves no fraction."""
    for unit, size in (
        ("GiB", 2**30),
        ("MiB", 2**20),
        ("KiB", 2**10),
        ("MB", 10**6),
        ("kB", 10**3),
    ):
        if count % size == 0:
            return f"{count // size}{unit}"
    return f"{count}B"


def _about(name: str) -> str:
    return Settings.model_fields[name].description or ""
