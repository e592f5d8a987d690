"""Types of options: durations and moments as people write them."""

from __future__ import annotations

import datetime as dt

import click


def duration(text: str) -> float:
    """`30s`, `5m`, `2h`: seconds."""
    from worker.duration import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from None


def rate(text: str) -> float:
    """`50/s`, `600/m`, `1000/h`, `20/d`: rows a second."""
    number, slash, unit = text.partition("/")
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86_400}.get(unit.strip().lower()[:1])
    try:
        if not slash or seconds is None:
            raise ValueError
        return float(number) / seconds
    except ValueError:
        raise click.BadParameter(f"{text!r}: a rate is written like 50/s or 600/m") from None


def moment(text: str) -> dt.datetime:
    """`2027-01-31T09:00`, in the local zone unless it names one."""
    try:
        return dt.datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: a time is written like 2027-01-31T09:00+01:00"
        ) from None
