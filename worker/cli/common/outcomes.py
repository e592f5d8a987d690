"""What became of the rows that a deed was about: asked in steps, asked again, and told."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import click

from worker.cli.common.output import show_rows
from worker.cli.common.parameters import duration
from worker.cli.common.terminal import say
from worker.errors import NotFound

Key = TypeVar("Key")
HashableKey = TypeVar("HashableKey", bound=Hashable)
Outcome = dict[str, Any]  # what names the row, `outcome`, `detail`

AT_ONCE = 1000  # rows in one statement
ASK_AGAIN = 0.2  # seconds between two looks whether a running row has ended

BLOCKED = {"running", "blocked", "idle", "missing", "finished", "busy"}
"""Outcomes that mean: not done."""

wait_option = click.option(
    "--wait", type=duration, default="5s", show_default=True, help="For running ones to end."
)


def in_steps(ask: Callable[[Sequence[Key]], list[Outcome]], keys: Sequence[Key]) -> list[Outcome]:
    """What `ask` gives for all of them, a statement for each thousand."""
    found: list[Outcome] = []
    for start in range(0, len(keys), AT_ONCE):
        found += ask(keys[start : start + AT_ONCE])
    return found


def cancelled(
    cancel: Callable[[Sequence[HashableKey]], Iterable[tuple[HashableKey, Outcome]]],
    keys: Iterable[HashableKey],
    wait: float,
) -> dict[HashableKey, Outcome]:
    """What became of each. Those that run are asked about again until they have ended or `wait`
    seconds have passed: one that failed at that moment waits for its next attempt, and is
    cancelled then."""
    until = time.monotonic() + wait
    outcomes: dict[HashableKey, Outcome] = {}
    left = list(dict.fromkeys(keys))
    while left:
        for key, row in cancel(left):
            asked = outcomes.get(key, row)["outcome"] in ("asked", "busy")
            if asked and row["outcome"] == "finished" and row["detail"] == "cancelled":
                row |= {"outcome": "cancelled", "detail": "while it ran"}
            outcomes[key] = row
        left = [key for key in left if outcomes[key]["outcome"] in ("asked", "busy")]
        if not left or time.monotonic() >= until:
            break
        time.sleep(ASK_AGAIN)
    return outcomes


def tell(
    found: Sequence[Outcome],
    noun: str,
    name: str,
    refusal: Callable[[Outcome], NotFound],
    *,
    as_json: bool,
) -> int:
    """Shows what became of each; the exit code. One that alone was asked for and was not done is
    an error; of several the exit code tells that some were not.

    noun: what they are. name: the column that names one. refusal: why one was not done.
    """
    not_done = [row for row in found if row["outcome"] in BLOCKED]
    if len(found) == 1 and not_done:
        raise refusal(found[0])
    show_rows(found, (name, "outcome", "detail"), as_json=as_json)
    for row in not_done:
        say(str(refusal(row)), error=True)
    if not found:
        say(f"no {noun} fits")
    return NotFound.exit_code if not_done else 0
