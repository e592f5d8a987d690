"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.duration import LONGEST, UNITS, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("2w", 1209600),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("1.1s", 1.1),
        (".5s", 0.5),
        ("1h30m", 5400),
        ("1d 2h 3m 4s 5ms", 93784.005),
        (" 10 S ", 10),
        ("30", 30),
        ("0.5", 0.5),
        ("0", 0),
        (30, 30),
        (0.25, 0.25),
    ],
)
def test_what_is_read(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "written like 30s"),
        ("soon", "written like 30s"),
        ("5 minutes", "written like"),
        ("5m later", "written like"),
        ("1h30", "written like"),
        ("1e3", "written like"),
        ("nan", "written like"),
        ("inf", "written like"),
        ("٣s", "written like"),
        (True, "written like"),
        ("-5s", "negative"),
        (-1, "negative"),
        ("36501d", "hundred years"),
        ("9" * 400, "hundred years"),
    ],
)
def test_what_is_refused(text: str | float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (0.0004, "0.4ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (30, "30s"),
        (90, "1m30s"),
        (600, "10m"),
        (5400, "1h30m"),
        (14 * 86400, "14d"),
        (90061.25, "1d1h1m1.25s"),
        (-90, "-1m30s"),
    ],
)
def test_what_is_written(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, int(LONGEST) * 1000))
def test_milliseconds_survive_the_round_trip(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-4, rel=1e-12)


@given(st.integers(0, 1000), st.sampled_from(sorted(UNITS)))
def test_a_number_and_a_unit(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == pytest.approx(number * UNITS[unit])


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        assert 0 <= parse_duration(text) <= LONGEST
    except ValueError:
        return
