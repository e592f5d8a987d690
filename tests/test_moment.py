"""Moments as seconds: until 2242 no microsecond is lost on the way to a datetime and back."""

from __future__ import annotations

import datetime as dt
import math

import asyncpg
from hypothesis import given
from hypothesis import strategies as st

from worker.moment import moment, seconds_of

since_1970 = st.datetimes(
    dt.datetime(1970, 1, 1), dt.datetime(2240, 1, 1), timezones=st.just(dt.UTC)
)


@given(since_1970)
def test_to_the_microsecond(at: dt.datetime) -> None:
    assert moment(seconds_of(at)) == at


def test_what_python_has_no_date_for() -> None:
    assert moment(-math.inf).year == moment(-1e14).year == 1
    assert moment(math.inf).year == moment(1e14).year == 9999


async def test_as_postgres_tells_them(apg: asyncpg.Connection) -> None:
    """Each microsecond has a float of its own: floors are compared with what they were read as."""
    ats = "select timestamptz '2026-11-22 07:07:07' + make_interval(secs => i * 1e-6)"
    rows = await apg.fetch(
        f"select at, date_part('epoch', at) from ({ats} as at from generate_series(0, 20000) i) ats"
    )
    assert [row[0] for row in rows] == [moment(row[1]) for row in rows]
