"""Writes the table of docs/settings.md."""

from __future__ import annotations

import sys

from worker.settings.table import settings_table

sys.stdout.write(settings_table())
