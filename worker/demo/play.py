"""The story: a thousand donations fall due, three workers charge them, one is killed on the way and
one is stopped. Then the books are compared."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from worker.demo.api import LATENCY
from worker.demo.crew import LEASE, Crew, Member
from worker.demo.figures import Figures, Progress, Verdict
from worker.demo.screen import Moment, Screen
from worker.demo.table import Donations
from worker.errors import DuerowError
from worker.url import DatabaseURL

KILL_AT = 0.25  # of the rows done
STOP_AT = 0.5
TICK = 0.1  # seconds between two looks
PATIENCE = 60.0  # seconds without any progress after which it is given up


@dataclass(frozen=True, slots=True)
class Options:
    """rows: how many donations. workers: processes at the start. errors: share of requests that
    the API fails. forget_keys: an API that charges anew whatever the idempotency key."""

    rows: int = 1000
    workers: int = 3
    errors: float = 0.1
    forget_keys: bool = False

    @property
    def api(self) -> Sequence[str]:
        return ["--errors", str(self.errors), *(["--forget-keys"] if self.forget_keys else [])]


def play(
    url: DatabaseURL, connection: psycopg.Connection[Any], options: Options, screen: Screen
) -> Verdict:
    """The whole of it, on a database whose schema is there. connection: to it, autocommit.

    Every process that it starts is gone when it returns or raises, and so is its table. Raises
    DuerowError when a worker ends by itself or nothing moves any more.
    """
    began = time.monotonic()
    with _table(connection) as table, Crew(url, table.schema, options.api) as crew:
        screen.say(f"a payments API listens on {crew.api_url}: {_described(options)}")
        donations = table.create(options.rows)
        screen.say(f"the table {table.schema}.donations holds {options.rows:,} that are due")
        _adopt(table, screen)
        figures = Figures(connection, table)
        _Story(crew, figures, screen, options).tell()
        return figures.verdict(donations, crew.ledger(), time.monotonic() - began)


@contextmanager
def _table(connection: psycopg.Connection[Any]) -> Iterator[Donations]:
    """Dropped at the end, however that comes."""
    table = Donations(connection, f"duerow_demo_{secrets.token_hex(3)}")
    try:
        yield table
    finally:
        table.drop()


def _adopt(table: Donations, screen: Screen) -> None:
    command, plan = table.adopt()
    screen.say(f"adopted by what this prints: {command} --sql")
    for step in plan.steps:
        screen.say(f"  {step.title}")


def _described(options: Options) -> str:
    keys = "it FORGETS idempotency keys" if options.forget_keys else "it keeps idempotency keys"
    return f"answers in 20 to 150 ms, {options.errors:.0%} of the requests fail, {keys}"


class _Story:
    """From the first worker's start to the last one's end."""

    def __init__(self, crew: Crew, figures: Figures, screen: Screen, options: Options) -> None:
        self._crew = crew
        self._figures = figures
        self._screen = screen
        self._options = options
        self._killed: Member | None = None
        self._stopped: Member | None = None
        self._held: set[str] = set()  # donations in the hands of the killed worker
        self._answered_by = float("inf")
        self._told: set[str] = set()

    def tell(self) -> None:
        for _ in range(self._options.workers):
            member = self._crew.start()
            self._screen.say(f"{member.name} starts, pid {member.pid}")
        self._until_done()
        for member in self._crew.members:
            if member.alive:
                self._crew.stop(member)
        for member in self._crew.members:
            member.process.wait(timeout=PATIENCE)
        self._notice(self._figures.progress())  # who left last

    def _until_done(self) -> None:
        moved, before = time.monotonic(), None
        while True:
            now = self._figures.progress()
            self._screen.show(Moment(self._options.rows, now, self._crew.members))
            self._intervene(now)
            self._notice(now)
            if not now.live and self._killed is not None and self._stopped is not None:
                return
            self._crew.check()
            if now.done != before:
                moved, before = time.monotonic(), now.done
            elif time.monotonic() - moved > PATIENCE:
                raise DuerowError(
                    f"nothing has moved for {PATIENCE:g} s, {now.live} donations are left",
                    why="this machine is very busy, or the workers cannot reach the API",
                    hint="run it again",
                )
            time.sleep(TICK)

    def _intervene(self, now: Progress) -> None:
        """Kills the first worker and stops the second, when their time has come."""
        done = now.done / self._options.rows
        first, second, *_ = self._crew.members
        if self._killed is None and done >= KILL_AT:
            self._kill(first, now)
        elif self._stopped is None and done >= STOP_AT:
            self._crew.stop(second)
            self._stopped = second
            self._screen.say(
                f"{second.name} is asked to stop (SIGTERM), as at a scale-down: "
                "it finishes what it runs and gives back the rest"
            )

    def _kill(self, member: Member, now: Progress) -> None:
        """While it holds rows, which it does but for moments."""
        shift = now.shifts.get(member.pid)
        if shift is None or (not shift.holds and now.due):
            return
        self._crew.kill(member)
        self._killed = member
        self._held = self._figures.held_by(shift.id)
        self._answered_by = time.monotonic() + LATENCY[1] + TICK
        self._screen.say(
            f"{member.name} is killed (SIGKILL) with {len(self._held)} donations in its hands; "
            f"they are free when its lease of {LEASE:g} s is over"
        )
        replacement = self._crew.start()
        self._screen.say(
            f"{replacement.name} starts in its place, as a platform would see to, "
            f"pid {replacement.pid}"
        )

    def _notice(self, now: Progress) -> None:
        """What became of the two."""
        if time.monotonic() > self._answered_by and self._killed is not None:
            self._answered_by = float("inf")
            charged = {charge["donation"] for charge in self._crew.ledger()["charges"]}
            self._screen.say(
                f"the API has charged {len(self._held & charged)} of those {len(self._held)}: "
                f"the answers went to a dead {self._killed.name}"
            )
        if self._killed is not None and (shift := now.shifts.get(self._killed.pid)) and shift.gone:
            self._once(
                f"{self._killed.name} is declared dead after {shift.silence:.1f} s of silence: "
                f"its {len(self._held)} donations run elsewhere, under the same idempotency keys"
            )
        if self._stopped is not None and not self._stopped.alive:
            code = self._stopped.process.returncode
            self._once(f"{self._stopped.name} has left, exit code {code}")

    def _once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._screen.say(text)
