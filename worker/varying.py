"""Numbers that may change while a worker runs: `10`, `2-40`, or `3,10:5,51:7,101:10`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Span:
    """Between two bounds, both included: `2-40`."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.least}-{self.most}"


@dataclass(frozen=True, slots=True)
class Steps:
    """By the number of rows that are due: `3,10:5,51:7` is 3, from 10 due rows on 5, from 51 on 7.

    steps: (due rows, number), ascending, the first from 0 on.
    """

    steps: tuple[tuple[int, int], ...]

    def at(self, due: int) -> int:
        return next(number for floor, number in reversed(self.steps) if due >= floor)

    def __str__(self) -> str:
        first, *others = self.steps
        return ",".join((str(first[1]), *(f"{floor}:{number}" for floor, number in others)))


Number: TypeAlias = int | Span | Steps


def read_span(text: str) -> Span | None:
    """None where it has another form. Raises ValueError for one that goes backwards."""
    found = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", text)
    if found is None:
        return None
    span = Span(int(found[1]), int(found[2]))
    if span.least > span.most:
        raise ValueError(f"{span.least} is more than {span.most}; write {span.most}-{span.least}")
    return span


def read_steps(text: str) -> Steps | None:
    """None where it has another form. Raises ValueError for steps that do not ascend."""
    found = re.fullmatch(r"\s*(\d+)((?:\s*,\s*\d+\s*:\s*\d+)+)\s*", text)
    if found is None:
        return None
    pairs = (part.split(":") for part in found[2].split(",")[1:])
    steps = [(0, int(found[1])), *((int(floor), int(number)) for floor, number in pairs)]
    floors = [floor for floor, _ in steps]
    if floors != sorted(set(floors)):
        raise ValueError("each step begins at more due rows than the one before: 3,10:5,51:7")
    return Steps(tuple(steps))


def numbers_of(value: Number) -> list[int]:
    """Those that it can be, or its bounds."""
    match value:
        case Span():
            return [value.least, value.most]
        case Steps():
            return [number for _, number in value.steps]
    return [value]


def most_of(value: Number) -> int:
    return max(numbers_of(value))
