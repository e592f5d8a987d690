"""When the ticks of a schedule are. Pure: the clock is always given.

All arithmetic of cron is cronsim's, in the schedule's own zone. So it is Debian cron's where the
clocks change: what falls into the hour that is left out runs at its end, what falls into the hour
that comes twice runs once, and `*` in minutes or hours follows the time that really passes. Ticks
are handed out in UTC.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from worker.errors import RegistrationError

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
EXAMPLE = (
    'five fields (minute hour day month weekday), e.g. "0 9 * * mon", or six with seconds first'
)


@dataclass(frozen=True, slots=True)
class Ticks:
    """The last of the ticks in a stretch of time. count: how many there were in all; at_least: that
    many or more."""

    last: tuple[dt.datetime, ...]
    count: int
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """One of cron, every (seconds) and at. tz: of cron. counts_from: ticks of `every` are whole
    multiples of it away."""

    cron: str | None = None
    every: float | None = None
    at: dt.datetime | None = None
    tz: str = "UTC"
    counts_from: dt.datetime = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

    def check(self) -> None:
        """Raises RegistrationError where this could never tick."""
        if [self.cron, self.every, self.at].count(None) != 2:
            raise RegistrationError(
                "a schedule needs one of cron, every and at",
                why=f"given were: {', '.join(self._given()) or 'none'}",
                hint='"0 9 * * mon", or every=timedelta(minutes=5), or at=datetime(2027, 1, 1)',
            )
        zone(self.tz)
        if self.every is not None and not 1 <= self.every <= 10 * 365 * 86_400:
            raise RegistrationError(
                f"every={self.every:g} is not between one second and ten years",
                hint="for less than a second let one job do several rounds",
            )
        if self.cron is not None:
            check_cron(self.cron)

    def after(self, moment: dt.datetime) -> dt.datetime | None:
        """The first tick after a moment; None if there is none."""
        return next(self.all_after(moment), None)

    def all_after(self, moment: dt.datetime) -> Iterator[dt.datetime]:
        """Every tick after a moment, in order."""
        if self.at is not None:
            yield from [self.at] if self.at > moment else []
        elif self.every is not None:
            step = dt.timedelta(seconds=self.every)
            tick = self.counts_from + ((moment - self.counts_from) // step + 1) * step
            while True:
                yield tick
                tick += step
        elif self.cron is not None:
            latest = moment
            from cronsim import CronSim  # half a megabyte, for those who have a cron expression

            for found in CronSim(_expanded(self.cron), moment.astimezone(zone(self.tz))):
                tick = found.astimezone(dt.UTC)
                # In an hour that comes twice cronsim may begin with ticks of its first time.
                if tick > latest:
                    yield tick
                    latest = tick

    def last(self, wanted: int, first: dt.datetime, now: dt.datetime, *, most: int) -> Ticks:
        """The last `wanted` ticks up to `now`, of which `first` is the first; counted up to `most`,
        no less than `wanted`, so that an outage of a year costs no more than one of an hour."""
        if self.every is not None:
            return self._last_of_every(wanted, first, now, most)
        ticks = [first, *self._some_after(first, now, most)]
        if len(ticks) <= most:
            return Ticks(tuple(ticks[-wanted:]), len(ticks))
        return Ticks(self._last_of_many(wanted, first, now), most, at_least=True)

    def _last_of_every(self, wanted: int, first: dt.datetime, now: dt.datetime, most: int) -> Ticks:
        assert self.every is not None
        step = dt.timedelta(seconds=self.every)
        latest = self.counts_from + ((now - self.counts_from) // step) * step
        since = max(
            0, -((first - latest) // step)
        )  # `first` may stand between: `every` was changed
        ticks = [latest - i * step for i in reversed(range(min(wanted, since)))]
        if len(ticks) < wanted:
            ticks.insert(0, first)
        return Ticks(tuple(ticks), min(since + 1, most), at_least=since + 1 > most)

    def _last_of_many(
        self, wanted: int, first: dt.datetime, now: dt.datetime
    ) -> tuple[dt.datetime, ...]:
        """By halving the time until what is left of it holds enough ticks and not many more."""
        early, late, most = first, now, 4 * wanted
        while True:
            middle = early + (late - early) / 2
            ticks = self._some_after(middle, now, most)
            if len(ticks) > most:
                early = middle
            elif len(ticks) < wanted:
                late = middle
            else:
                return tuple(ticks[-wanted:])

    def _some_after(self, moment: dt.datetime, until: dt.datetime, most: int) -> list[dt.datetime]:
        """Up to most + 1 ticks after `moment`, not after `until`."""
        found = []
        for tick in islice(self.all_after(moment), most + 1):
            if tick > until:
                break
            found.append(tick)
        return found

    def _given(self) -> list[str]:
        return [name for name in ("cron", "every", "at") if getattr(self, name) is not None]


def check_cron(expression: str) -> None:
    """Raises RegistrationError for what is no cron expression, or never comes."""
    from cronsim import CronSim, CronSimError

    try:
        found = next(CronSim(_expanded(expression), dt.datetime(2024, 1, 1)), None)
    except (CronSimError, ValueError) as error:
        raise RegistrationError(
            f"{expression!r} is no cron expression", why=str(error), hint=EXAMPLE
        ) from None
    if found is None:
        raise RegistrationError(
            f"the cron expression {expression!r} never comes",
            why="no day of the next fifty years fits it",
            hint="look at its day and month",
        )


def zone(name: str) -> ZoneInfo:
    """Raises RegistrationError for a time zone that is not known here."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        pass
    import difflib

    known = available_timezones()
    by_city = {one.rpartition("/")[2].lower(): one for one in sorted(known)}
    near = difflib.get_close_matches(str(name).rpartition("/")[2].lower(), by_city, 1)
    raise RegistrationError(
        f"there is no time zone {name!r}",
        why="it is not in this machine's time zone database"
        if known
        else "this machine has no time zone database",
        hint=(f"tz={by_city[near[0]]!r}" if near else 'tz="Europe/Berlin"')
        if known
        else "pip install tzdata",
    )


def _expanded(expression: str) -> str:
    return NICKNAMES.get(expression.strip().lower(), expression)
