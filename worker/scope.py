"""Which rows something is about."""

from __future__ import annotations

from dataclasses import dataclass

EACH = "*"
"""The tenant of a scope that stands for every tenant, each with limits of its own."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows: those of a queue, a kind, a tenant; None stands for any."""

    queue: str | None = None
    kind: str | None = None
    tenant: str | None = None

    def covers(self, queue: str, kind: str) -> bool:
        """Whether rows of that stream may be in it."""
        return self.queue in (None, queue) and self.kind in (None, kind)

    def holds(self, queue: str, kind: str, tenant: str | None) -> bool:
        return self.covers(queue, kind) and (
            self.tenant is None or (tenant is not None and self.tenant in (EACH, tenant))
        )

    def __str__(self) -> str:
        parts = [
            f"{name} {value}"
            for name in ("queue", "kind", "tenant")
            if (value := getattr(self, name)) is not None
        ]
        return ", ".join(parts) or "everything"
