"""What a run measured, as a short table."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """value and the limit it must keep, as texts; kept: whether it does."""

    what: str
    value: str
    limit: str = ""
    kept: bool = True


@dataclass
class Figures:
    """The figures of one run."""

    title: str
    figures: list[Figure] = field(default_factory=list)

    def add(
        self,
        what: str,
        value: float | str,
        *,
        most: float | None = None,
        least: float | None = None,
        exactly: float | str | None = None,
    ) -> None:
        """most, least, exactly: what the value must be; without either it is only told."""
        limit, kept = "", True
        if most is not None:
            limit, kept = f"<= {_told(most)}", float(value) <= most
        elif least is not None:
            limit, kept = f">= {_told(least)}", float(value) >= least
        elif exactly is not None:
            limit, kept = f"= {_told(exactly)}", value == exactly
        self.figures.append(Figure(what, _told(value), limit, kept))

    @property
    def kept(self) -> bool:
        return all(figure.kept for figure in self.figures)

    def __str__(self) -> str:
        widths = [max(len(getattr(f, name)) for f in self.figures) for name in ("what", "value")]
        lines = [self.title, "-" * len(self.title)]
        for figure in self.figures:
            verdict = "" if figure.kept else "   NOT KEPT"
            value = f"{figure.value:>{widths[1]}}"
            lines.append(f"{figure.what:{widths[0]}}  {value}  {figure.limit}{verdict}".rstrip())
        return "\n".join(lines)


def _told(value: float | str) -> str:
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.2f}"
    return value if isinstance(value, str) else f"{int(value):,}"
