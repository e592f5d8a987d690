"""Schedules: what enqueues jobs by the clock."""

from __future__ import annotations

from worker.migrate import frozen

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    frozen.up(__file__)


def downgrade() -> None:
    frozen.down(__file__)
