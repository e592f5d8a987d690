"""What the code says of limits and breakers: settings of a scope, kept by the whole fleet."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, replace

from worker.errors import RegistrationError
from worker.scope import EACH, Scope

RATE_LEAST = 1 / 86_400
RATE_MOST = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Limit:
    """rate: rows a second; burst: how many of them at once after a rest. concurrency: rows that
    run at once. Each None for no limit."""

    rate: float | None = None
    burst: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Breaker:
    """When the outside is left alone, and for how long.

    failures: so many in a row open it. share: or such a part of the runs within `window` seconds,
        of which there must have been `runs`. pause: seconds until one row tries.
    """

    failures: int | None = 10
    share: float | None = None
    runs: int = 10
    window: float = 60.0
    pause: float = 60.0


@dataclass(frozen=True, slots=True)
class Rules:
    """All that is said of one scope."""

    limit: Limit = Limit()
    breaker: Breaker | None = None

    def parameters(self) -> list[object]:
        """For sql/operate/limit.sql, from rate to trip_pause."""
        of = self.breaker
        return [
            self.limit.rate,
            self.limit.burst,
            self.limit.concurrency,
            of and of.failures,
            of and of.share,
            of and of.runs,
            of and of.window,
            of and of.pause,
        ]


class Limits:
    """The rules of one app, by scope."""

    def __init__(self) -> None:
        self.rules: dict[Scope, Rules] = {}

    def limit(self, scope: Scope, limit: Limit) -> None:
        """Raises RegistrationError."""
        before = self.rules.get(scope, Rules())
        if before.limit != Limit():
            raise _twice("limit", scope)
        self.rules[scope] = replace(before, limit=checked_limit(limit))

    def breaker(self, scope: Scope, breaker: Breaker) -> None:
        """Raises RegistrationError."""
        before = self.rules.get(scope, Rules())
        if before.breaker is not None:
            raise _twice("breaker", scope)
        self.rules[scope] = replace(before, breaker=checked_breaker(breaker))


def scope_of(
    queue: str | None, kind: str | None, tenant: str | None, each_tenant: bool = False
) -> Scope:
    """Raises RegistrationError for one that stands for everything, or names a tenant twice."""
    if queue is None and kind is None and tenant is None and not each_tenant:
        raise RegistrationError(
            "a limit needs a queue, a kind or a tenant",
            why="otherwise it would be one for everything there is",
            hint="app.limit(kind='send', rate=50)",
        )
    if tenant is not None and each_tenant:
        raise RegistrationError(
            "tenant and each_tenant are both said",
            hint="tenant='acme' for that one, each_tenant=True for all of them, each for itself",
        )
    if tenant == EACH:
        raise RegistrationError(f"no tenant can be called {EACH!r} here", hint="each_tenant=True")
    return Scope(queue, kind, EACH if each_tenant else tenant)


def checked_limit(limit: Limit) -> Limit:
    """With a burst, if it has a rate. Raises RegistrationError."""
    if limit.rate is None and limit.concurrency is None:
        raise RegistrationError(
            "the limit limits nothing", hint="rate=50, concurrency=3, or both of them"
        )
    if limit.rate is not None and not RATE_LEAST <= limit.rate <= RATE_MOST:
        raise RegistrationError(
            f"a rate of {limit.rate} rows a second is out of range",
            why=f"it goes from one a day to {RATE_MOST:,.0f} a second",
            hint="to stop all of it: worker pause",
        )
    if limit.burst is not None and (limit.rate is None or not 1 <= limit.burst <= 1_000_000):
        raise RegistrationError(
            f"burst={limit.burst} makes no sense here",
            why="it is how many rows may start at once under a rate: 1 or more",
            hint="rate=50, burst=10",
        )
    if limit.concurrency is not None and not 1 <= limit.concurrency <= 1_000_000:
        raise RegistrationError(
            f"concurrency={limit.concurrency} is not 1 or more", hint="to stop all: worker pause"
        )
    if limit.rate is not None and limit.burst is None:
        return replace(limit, burst=max(1, math.floor(limit.rate / 10)))
    return limit


def checked_breaker(breaker: Breaker) -> Breaker:
    """Raises RegistrationError."""
    if breaker.failures is None and breaker.share is None:
        raise RegistrationError("the breaker would never open", hint="failures=10, or share=0.5")
    for name in ("failures", "runs"):
        if (value := getattr(breaker, name)) is not None and value < 1:
            raise RegistrationError(f"{name}={value} is not 1 or more")
    if breaker.share is not None and not 0 < breaker.share <= 1:
        raise RegistrationError(f"share={breaker.share} is not a part of 1: 0.5 is one half")
    for name in ("window", "pause"):
        if not 0 < getattr(breaker, name) <= 86_400:
            raise RegistrationError(
                f"{name}={getattr(breaker, name)} is not up to a day, in seconds"
            )
    return breaker


def per_second(rate: float, per: float | dt.timedelta) -> float:
    """Rows a second. per: what `rate` rows are for, in seconds. Raises RegistrationError."""
    seconds = per.total_seconds() if isinstance(per, dt.timedelta) else per
    if not seconds > 0:
        raise RegistrationError(f"per={per} is no length of time", hint="per=60 for a minute")
    return rate / seconds


def _twice(what: str, scope: Scope) -> RegistrationError:
    return RegistrationError(f"two {what}s are said of {scope}", hint="make them one")
