"""Whose turn it is: all contestants in each round, in every second round the last one first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def turns(rounds: int, contestants: Iterable[T]) -> Iterator[T]:
    """What favours the first, or the last, favours each."""
    order = list(contestants)
    for _ in range(rounds):
        yield from order
        order.reverse()
