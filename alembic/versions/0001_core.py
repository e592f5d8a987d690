"""The core: live jobs, finished jobs, attempts, workers."""

from __future__ import annotations

from worker.migrate import frozen

revision = "0001"
down_revision = None


def upgrade() -> None:
    frozen.up(__file__)


def downgrade() -> None:
    frozen.down(__file__)
