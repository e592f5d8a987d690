"""Settings: flag > environment > `[tool.duerow]` of the nearest pyproject.toml > default."""

from __future__ import annotations

from worker.settings.model import EMBEDDED, Seconds, Settings
from worker.settings.table import SettingRow, setting_rows, settings_table

__all__ = ["EMBEDDED", "Seconds", "SettingRow", "Settings", "setting_rows", "settings_table"]
