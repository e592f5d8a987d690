"""What cannot be enqueued is refused before anything is sent, with what, why and what next."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import enqueue, enqueue_many
from worker.batch import Batch
from worker.errors import DuerowError, PayloadInvalid, UsageError
from worker.job import Job
from worker.jsonb import DEPTH_LIMIT, PAYLOAD_LIMIT, Unwritable, fault_of, suspects, write


def nested(levels: int) -> dict[str, Any]:
    inner: Any = {}
    for level in range(levels - 1):
        inner = [inner] if level % 2 else {"a": inner}
    return {"args": inner} if isinstance(inner, list) else inner


def circular() -> dict[str, Any]:
    me: dict[str, Any] = {}
    me["me"] = [me]
    return me


class Opaque:
    pass


PLAIN_VALUES = "pass text, numbers, lists, dicts, dates, UUIDs, decimals or models"
PAIR = "decode the text that it came from with errors='replace'"
DEEP = (
    "it is nested deeper than 100 levels, or holds itself",
    "store the data in a table and pass its key",
)

ARGS: dict[str, tuple[Any, str, str]] = {
    "too long": (
        {"a": "x" * PAYLOAD_LIMIT},
        "262,152 bytes are over the limit of 262,144",
        "store the data in a table or an object store and pass its key",
    ),
    "too long in bytes": (
        {"a": "é" * (PAYLOAD_LIMIT // 2)},
        "262,152 bytes are over the limit of 262,144",
        "store the data in a table or an object store and pass its key",
    ),
    "too deep": (nested(101), *DEEP),
    "very deep": (nested(5_000), *DEEP),
    "circular": (circular(), *DEEP),
    "NUL": (
        {"donor": {"names": ["ok", "a\0b"]}},
        "donor.names[1] holds a NUL character, which Postgres refuses",
        "take it out",
    ),
    "NUL in a name": (
        {"donor": {"na\0me": 1}},
        "donor has a name that holds a NUL character, which Postgres refuses",
        "take it out",
    ),
    "NUL in a name at the top": (
        {"na\0me": 1},
        "it has a name that holds a NUL character, which Postgres refuses",
        "take it out",
    ),
    "surrogate": (
        {"note": ["\ud800"]},
        "note[0] holds half a surrogate pair, which is no character",
        PAIR,
    ),
    "surrogate in a name": (
        {"donor": {"\ud800": 1}},
        "donor has a name that holds half a surrogate pair, which is no character",
        PAIR,
    ),
    "NaN": (
        {"sum": {"of": float("nan")}},
        "sum.of is NaN or infinite, which JSON cannot say",
        "pass None, or text",
    ),
    "infinite": (
        {"sums": [1.5, float("-inf")]},
        "sums[1] is NaN or infinite, which JSON cannot say",
        "pass None, or text",
    ),
    "long number": (
        {"n": 10**5_000},
        "n is a number of 5,001 digits",
        "pass it as text",
    ),
    "array": ([1, 2], "it is an array, not an object", "pass the arguments by name: a dict"),
    "text": ("{}", "it is text, not an object", "pass the arguments by name: a dict"),
    "number": (7, "it is a number, not an object", "pass the arguments by name: a dict"),
    "null": (None, "it is null, not an object", "pass the arguments by name: a dict"),
    "opaque": (
        {"card": {"of": [Opaque()]}},
        "card.of[0] is of type Opaque: JSON has no such thing",
        PLAIN_VALUES,
    ),
    "bytes": (
        {"blob": b"\xff"},
        "blob is of type bytes: invalid utf-8 sequence of 1 bytes from index 0",
        PLAIN_VALUES,
    ),
}

FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no kind": ({"kind": ""}, "kind is empty", "name it"),
    "kind is None": ({"kind": None}, "kind is missing", "name it"),
    "kind is no text": ({"kind": 7}, "kind is of type int, not text", "pass a str"),
    "kind is a list": ({"kind": ["a"]}, "kind is of type list, not text", "pass a str"),
    "kind is long": (
        {"kind": "k" * 201},
        "kind has 201 characters, over the limit of 200",
        "shorten it",
    ),
    "kind with NUL": (
        {"kind": "a\0"},
        "kind holds a NUL character, which Postgres refuses",
        "take it out",
    ),
    "no queue": ({"queue": ""}, "queue is empty", "name it"),
    "queue is None": ({"queue": None}, "queue is missing", "name it"),
    "no tenant": ({"tenant": ""}, "tenant is empty", "name it, or leave it out"),
    "tenant is no text": ({"tenant": 7}, "tenant is of type int, not text", "pass a str"),
    "surrogate in tenant": (
        {"tenant": "\udfff"},
        "tenant holds half a surrogate pair, which is no character",
        PAIR,
    ),
    "NUL in trace": (
        {"trace": "\0"},
        "trace holds a NUL character, which Postgres refuses",
        "take it out",
    ),
    "priority is high": (
        {"priority": 32_768},
        "priority is 32768, not between -32,768 and 32,767",
        "",
    ),
    "priority is low": (
        {"priority": -32_769},
        "priority is -32769, not between -32,768 and 32,767",
        "",
    ),
    "priority is None": (
        {"priority": None},
        "priority is of type NoneType, not a whole number",
        "pass an int",
    ),
    "priority is no number": (
        {"priority": "high"},
        "priority is of type str, not a whole number",
        "pass an int",
    ),
    "no attempts": (
        {"max_attempts": 0},
        "max_attempts is 0, not between 1 and 2,147,483,647",
        "",
    ),
    "naive": (
        {"due_at": dt.datetime(2026, 11, 22, 1, 2, 3)},
        "due_at is 2026-11-22T01:02:03, which has no time zone",
        "datetime.now(UTC), or .replace(tzinfo=...)",
    ),
    "a date": (
        {"due_at": dt.date(2026, 11, 22)},
        "due_at is of type date, not a datetime",
        "pass a datetime",
    ),
    "the end of time": (
        {"due_at": dt.datetime.max.replace(tzinfo=dt.UTC)},
        "due_at is in the year 9999",
        "",
    ),
    "negative delay": ({"delay": -1}, "delay is -1 s, not between 0 s and ten years", ""),
    "negative timedelta": (
        {"delay": dt.timedelta(seconds=-1)},
        "delay is -1.0 s, not between 0 s and ten years",
        "",
    ),
    "delay is NaN": (
        {"delay": float("nan")},
        "delay is nan s, not between 0 s and ten years",
        "",
    ),
    "delay for ever": (
        {"delay": float("inf")},
        "delay is inf s, not between 0 s and ten years",
        "",
    ),
    "delay is text": (
        {"delay": "5m"},
        "delay is of type str, not seconds",
        "pass a number or a timedelta",
    ),
    "due_at and delay": (
        {"due_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "delay": 5},
        "due_at and delay both say when to run",
        "give one of them",
    ),
    "unique_for alone": (
        {"unique_for": 60},
        "unique_for says how long, but there is no unique_key",
        "give a unique_key",
    ),
    "unique for no time": (
        {"unique_key": "k", "unique_for": 0},
        "unique_for is 0 s, not between 0.001 s and ten years",
        "",
    ),
    "empty key": (
        {"unique_key": ""},
        "unique_key is empty: all such jobs would be one",
        "leave it out, or fill it",
    ),
    "long key": (
        {"unique_key": "é" * 751},
        "unique_key has 1,502 bytes, over the limit of 1,500",
        "pass its hash",
    ),
}

BAD = {name: (Job("charge", args), why, hint) for name, (args, why, hint) in ARGS.items()}
BAD |= {
    name: (Job(**{"kind": "charge", **fields}), why, hint)
    for name, (fields, why, hint) in FIELDS.items()
}


def text_of(what: str, why: str, hint: str) -> str:
    return f"{what}\n  why:  {why}" + (f"\n  next: {hint}" if hint else "")


def told(job: Job) -> str:
    if not isinstance(job.kind, str):
        return "of no kind"
    return "of kind " + {201: repr("k" * 79 + "…"), 2: repr("a\\x00")}.get(
        len(job.kind), repr(job.kind)
    )


@pytest.mark.parametrize("name", BAD)
def test_a_bad_job_is_refused(name: str) -> None:
    job, why, hint = BAD[name]
    error = PayloadInvalid if name in ARGS else UsageError
    why = f"args: {why}" if name in ARGS else why
    with pytest.raises(error) as alone:
        enqueue(None, job)
    assert type(alone.value) is error
    assert str(alone.value) == text_of(f"a job {told(job)} cannot be enqueued", why, hint)

    for position in (0, 6, 9):
        jobs = [Job("charge", {"n": n}, tenant=f"t{n % 2}") for n in range(9)]
        jobs.insert(position, job)
        with pytest.raises(error) as among:
            enqueue_many(None, jobs)
        what = f"job {position} of 10, {told(job)}, cannot be enqueued"
        assert str(among.value) == text_of(what, why, hint)


def test_a_payload_is_never_told() -> None:
    job = Job("charge", {"card": "4242-4242-4242\0"})
    with pytest.raises(PayloadInvalid) as caught:
        enqueue(None, job)
    assert "4242" not in str(caught.value)


def test_what_is_no_job() -> None:
    with pytest.raises(UsageError) as caught:
        enqueue_many(None, [Job("charge"), {"kind": "charge"}])  # type: ignore[list-item]
    assert str(caught.value) == (
        "job 1 of 2, of no kind, cannot be enqueued\n"
        "  why:  it is a dict, not a Job\n"
        '  next: pass Job("kind", {"argument": 1}), or what a handler\'s .job() gives'
    )


def test_the_limit_can_be_set() -> None:
    for size, fits in ((100, True), (101, False)):
        job = Job("charge", {"a": "x" * (size - len('{"a":""}'))})
        if fits:
            Batch([job], None, 100)
        else:
            with pytest.raises(PayloadInvalid, match="101 bytes are over the limit of 100"):
                enqueue(None, job, limit=100)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1", "args: it is not JSON: Expecting ',' delimiter: line 1 column 3 (char 2)"),
        ('{"a": "\\ud83d"}', "args: a holds half a surrogate pair, which is no character"),
        ('{"a": "\\uD83D"}', "args: a holds half a surrogate pair, which is no character"),
        ('{"a": "\ud83d"}', "args: they hold half a surrogate pair, which is no character"),
        ('{"a": NaN}', "args: a is NaN or infinite, which JSON cannot say"),
        ('{"a": 1e999, "b": "NaN"}', "args: a is NaN or infinite, which JSON cannot say"),
        ("", "args: it is not JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_an_encoder_is_not_trusted(text: str, why: str) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        enqueue(None, Job("charge"), encode=lambda _: text)
    assert caught.value.why == why


GOOD = {
    "as deep as may be": nested(100),
    "as long as may be": {"a": "x" * (PAYLOAD_LIMIT - 8)},
    "wide": {"a": [[]] * 5_000, "b": [{}] * 5_000},
    "brackets in text": {"a": "[{" * 500},
    "words that look bad": {"NaN": "Infinity", "a": "\\u0000 \\ud800 -Infinity"},
    "long digits in text": {"a": "7" * 10_000},
    "as many digits as may be": {"a": 10**4_299, "b": [-(10**4_299)]},
    "control characters": {"a": "\x01\x1f\x7f\n\r\t\u2028\ufffe\uffff"},
    "astral": {"🐘": "🐘" * 100},
}


@pytest.mark.parametrize("name", GOOD)
def test_what_only_looks_bad_goes_in(name: str, pg: psycopg.Connection) -> None:
    for encode in (None, lambda job: write(job.args)):
        enqueue(pg, Job("charge", GOOD[name]), encode=encode)
        stored = pg.execute("delete from worker.jobs returning args").fetchone()
        assert stored == (GOOD[name],)


@pytest.mark.parametrize("name", BAD)
def test_the_transaction_goes_on_after_a_refusal(name: str, db_url: str) -> None:
    with psycopg.connect(db_url) as connection:
        enqueue(connection, Job("charge"))
        for attempt in (enqueue, lambda c, job: enqueue_many(c, [Job("charge"), job])):
            with pytest.raises(DuerowError):
                attempt(connection, BAD[name][0])
        enqueue(connection, Job("charge"))
        assert connection.execute("select count(*) from worker.jobs").fetchone() == (2,)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "k" * 200, "queue": "🐘" * 200, "tenant": "🐘" * 200},
        {"kind": "🐘" * 200, "unique_key": "é" * 750, "unique_for": 10 * 365 * 86_400 - 1},
        {"kind": "k", "due_at": dt.datetime(2, 1, 1, tzinfo=dt.UTC), "priority": -32_768},
        {"kind": "k", "due_at": dt.datetime(9998, 12, 31, tzinfo=dt.UTC)},
        {"kind": "k", "delay": 10 * 365 * 86_400 - 1, "max_attempts": 2**31 - 1},
    ],
)
def test_what_is_just_allowed_goes_in(fields: dict[str, Any], pg: psycopg.Connection) -> None:
    assert enqueue(pg, Job(**fields)).created
    assert all(r.created for r in enqueue_many(pg, [Job(**fields | {"kind": "other"}), Job("x")]))


_hostile = st.recursive(
    st.none()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["\0", "\ud800", "a\0", float("nan"), float("-inf"), "NaN", "\\u0000"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), _hostile, max_size=3))
def test_nothing_bad_comes_through_and_nothing_good_is_refused(args: dict[str, Any]) -> None:
    try:
        text = write(args)
    except Unwritable as refusal:
        text, fault = b"", refusal.fault
    else:
        fault = fault_of(text, PAYLOAD_LIMIT)
    assert fault is None or not text or suspects([b"{}", text], PAYLOAD_LIMIT)
    expected = {f for f in map(_bad, _parts(args)) if f}
    assert (fault is not None) is bool(expected)
    assert not expected or any(word in fault.why for word in expected)


def _parts(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _parts(inner)


def _bad(value: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN or infinite"
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        return "surrogate"
    return "NUL" if isinstance(value, str) and "\0" in value else None


@pytest.mark.parametrize("levels", [DEPTH_LIMIT - 1, DEPTH_LIMIT, DEPTH_LIMIT + 1])
def test_the_depth_is_counted_exactly(levels: int) -> None:
    fault = fault_of(write(nested(levels)), PAYLOAD_LIMIT)
    assert (fault is not None) is (levels > DEPTH_LIMIT)


def test_chunks_stay_within_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [6, 88, 6, 6, 6, 6, 6, 60, 40, 200, 6]
    batch = Batch([Job("c", {"a": "x" * (n - 8)} if n > 8 else {"": 6}) for n in sizes], None, 999)
    assert batch.chunks(range(11)) == [range(11)]
    monkeypatch.setattr("worker.batch.CHUNK_ROWS", 4)
    monkeypatch.setattr("worker.batch.CHUNK_BYTES", 100)
    chunks = batch.chunks(range(11))
    assert [list(chunk) for chunk in chunks] == [*([0, 1, 2], [3, 4, 5, 6], [7, 8], [9], [10])]
    assert batch.chunks([10, 3, 1]) == [[10, 3, 1]]
    assert batch.chunks([]) == []
