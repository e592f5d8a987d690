"""Errors as they are stored: safe for Postgres, bounded, with a fingerprint to group by."""

from __future__ import annotations

import psycopg
from hypothesis import given
from hypothesis import strategies as st

from worker.outcome import MESSAGE_LIMIT, TRACEBACK_LIMIT, Fault, storable

everything = st.text(st.characters(exclude_categories=()))


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@given(everything, st.integers(1, 50))
def test_storable_fits_and_encodes(text: str, limit: int) -> None:
    stored = storable(text, limit)
    assert len(stored) <= limit
    assert "\0" not in stored
    stored.encode()


def test_storable_shows_what_it_took_out() -> None:
    assert storable("a\0b") == "a\\x00b"
    assert storable("\ud800") == "\\ud800"
    assert storable("é → 🙂") == "é → 🙂"
    assert storable("abcdef", 4) == "abc…"


def test_postgres_takes_what_storable_gives(pg: psycopg.Connection) -> None:
    worst = "".join(map(chr, [*range(300), 0xD800, 0xDFFF, 0xFFFE, 0xFFFF, 0x10FFFF]))
    [back] = pg.execute("select %s::text", [storable(worst, 2000)]).fetchone() or ("",)
    assert back == storable(worst, 2000)


def test_fault() -> None:
    fault = Fault.of(raised(ValueError("card 4\0 \udc80")))
    assert fault.type == "ValueError"
    assert fault.message == "card 4\\x00 \\udc80"
    assert fault.fingerprint == "ValueError@tests.test_outcome:raised"
    assert fault.traceback is not None
    assert fault.traceback.startswith("Traceback (most recent call last):")
    assert "\0" not in fault.traceback


def test_the_fingerprint_does_not_depend_on_line_or_message() -> None:
    one = raised(KeyError("a"))
    other = raised(KeyError("b"))
    assert Fault.of(one).fingerprint == Fault.of(other).fingerprint


def test_an_error_without_text_or_traceback() -> None:
    fault = Fault.of(TimeoutError())
    assert (fault.message, fault.fingerprint, fault.traceback) == (
        "TimeoutError",
        "TimeoutError",
        None,
    )


def test_an_error_whose_text_fails() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text for you")

        __repr__ = __str__

    fault = Fault.of(raised(Hostile()))
    assert fault.message == "its text could not be read: RuntimeError"
    assert fault.type.endswith("Hostile")


def test_an_error_whose_text_is_no_text() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            return 7  # type: ignore[return-value]

    assert Fault.of(Hostile()).message == "its text could not be read: TypeError"


def test_long_ones_are_cut() -> None:
    def deep(n: int, word: str) -> None:
        if n:
            deep(n - 1, word) if n % 2 else deep(n - 1, word=word)
        else:
            raise ValueError(word * 1_000_000)

    try:
        deep(400, "long")
    except ValueError as error:
        fault = Fault.of(error)
    assert len(fault.message) == MESSAGE_LIMIT
    assert fault.traceback is not None
    assert len(fault.traceback) <= TRACEBACK_LIMIT + 5
    assert fault.traceback.startswith("Traceback")


def test_a_chain_that_bites_its_tail() -> None:
    error = raised(ValueError("round"))
    error.__cause__ = error
    assert Fault.of(error).message == "round"
