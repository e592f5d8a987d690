"""How the demo is shown: a bar and a table that move on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker.demo.crew import Member
from worker.demo.figures import Progress

EVERY = 1.0  # seconds between two plain lines


@dataclass(frozen=True, slots=True)
class Moment:
    """What there is to show now."""

    total: int
    progress: Progress
    members: Sequence[Member]


class Lines:
    """A line for each thing that happens, and one a second in between. They go to stderr if
    stdout is for something else."""

    def __init__(self, *, to_stderr: bool) -> None:
        self._stream = sys.stderr if to_stderr else sys.stdout
        self._began = time.monotonic()
        self._shown = 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        self._stream.write(f"{time.monotonic() - self._began:5.1f} s  {text}\n")
        self._stream.flush()

    def show(self, moment: Moment) -> None:
        if time.monotonic() - self._shown < EVERY:
            return
        self._shown = time.monotonic()
        self.say(_in_words(moment))


class Live:
    """rich's live display."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as Display

        self._console = Console(highlight=False, emoji=False)
        self._display = Display(console=self._console, refresh_per_second=10)
        self._began = time.monotonic()

    def __enter__(self) -> Live:
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def say(self, text: str) -> None:
        self._console.print(f"{time.monotonic() - self._began:5.1f} s  {text}", markup=False)

    def show(self, moment: Moment) -> None:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        shown = Table.grid()
        shown.add_row(ProgressBar(total=moment.total, completed=moment.progress.done, width=60))
        shown.add_row(Text(_in_words(moment)))
        shown.add_row(_table(moment))
        self._display.update(shown)


Screen = Lines | Live


def screen(*, live: bool, to_stderr: bool) -> Screen:
    return Live() if live else Lines(to_stderr=to_stderr)


def _in_words(moment: Moment) -> str:
    now = moment.progress
    return (
        f"{now.done:,} of {moment.total:,} donations done, {now.running} in hand, "
        f"{now.later} to be tried again, {now.due:,} due"
    )


def _table(moment: Moment) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("worker", "pid", "charged", "holds", "state"):
        table.add_column(heading, justify="right" if heading in ("charged", "holds") else "left")
    for member in moment.members:
        shift = moment.progress.shifts.get(member.pid)
        charged, holds = (shift.charged, shift.holds) if shift else (0, 0)
        table.add_row(
            member.name, str(member.pid), str(charged), str(holds), _state(member, shift is None),
            style=None if member.fate is None else "dim",
        )  # fmt: skip
    return table


def _state(member: Member, unknown: bool) -> str:
    if member.fate is None:
        return "starting" if unknown else "working"
    return member.fate if not member.alive else f"{member.fate}, finishing what it runs"
