"""${message}."""

from __future__ import annotations

from worker.migrate import frozen

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    frozen.up(__file__)


def downgrade() -> None:
    frozen.down(__file__)
