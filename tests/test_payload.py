"""A handler's signature, what it refuses to be, and payloads that mean harm."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import decimal
import functools
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import asyncpg
import psycopg
import pydantic
import pytest
import sqlalchemy.ext.asyncio
import sqlalchemy.orm
from hypothesis import given
from hypothesis import strategies as st

from worker import App, Context, PayloadInvalid, RetryPolicy
from worker.errors import DuerowError, RegistrationError, UnknownKind
from worker.payload import Signature, read_signature

APP = App()


class Opaque:
    """What no JSON can carry."""


class Card(pydantic.BaseModel):
    number: str
    expires: dt.date


@dataclasses.dataclass
class Money:
    amount: decimal.Decimal
    currency: str = "EUR"


def signature(function: Callable[..., Any]) -> Signature:
    return read_signature("charge", function)


def said(function: Callable[..., Any]) -> str:
    """The message with which a function is refused as a handler."""
    with pytest.raises(RegistrationError) as refused:
        App().handler("charge")(function)
    assert refused.value.exit_code == 5
    return str(refused.value)


# -- the groups of parameters -------------------------------------------------------------------


def test_parameters_fall_into_three_groups() -> None:
    def charge(
        donation: int,
        card: Card,
        context: Context,
        db: psycopg.Connection[Any],
        again: bool = False,
    ) -> None: ...

    seen = signature(charge)
    assert (seen.context, seen.session, seen.session_kind) == ("context", "db", "psycopg")
    assert seen.fields == {"donation", "card", "again"}


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (asyncpg.Connection, "asyncpg"),
        (psycopg.Connection, "psycopg"),
        (psycopg.Connection[dict[str, Any]], "psycopg"),
        (psycopg.AsyncConnection, "psycopg-async"),
        (psycopg.AsyncConnection[Any], "psycopg-async"),
        (sqlalchemy.ext.asyncio.AsyncSession, "sqlalchemy-async"),
        (sqlalchemy.orm.Session, "sqlalchemy"),
        (asyncpg.Connection | None, "asyncpg"),
    ],
)
def test_sessions_are_known_by_their_annotation(annotation: Any, kind: str) -> None:
    def handler(session: Any) -> None: ...

    handler.__annotations__["session"] = annotation
    assert signature(handler).session_kind == kind


def test_a_subclass_of_a_session_is_one() -> None:
    class Ours(sqlalchemy.orm.Session):
        pass

    def handler(session: Any) -> None: ...

    handler.__annotations__["session"] = Ours
    assert signature(handler).session_kind == "sqlalchemy"


def test_context_and_session_may_default_to_none() -> None:
    """So that a handler can be called without them in its own test."""

    def handler(
        context: Context | None = None, session: asyncpg.Connection | None = None
    ) -> None: ...

    seen = signature(handler)
    assert (seen.context, seen.session) == ("context", "session")


def test_names_that_mean_something_elsewhere() -> None:
    def handler(model_config: int, _under: int, copy: int, json: int, schema: int) -> None: ...

    args = {"model_config": 1, "_under": 2, "copy": 3, "json": 4, "schema": 5}
    assert signature(handler).read(json.dumps(args)) == args


# -- what is refused as a handler -----------------------------------------------------------------


def test_two_sessions() -> None:
    def handler(one: asyncpg.Connection, other: asyncpg.Connection) -> None: ...

    assert said(handler) == (
        "handler of 'charge' asks for two sessions: one and other\n"
        "  next: take one; a row is settled in the transaction of one session"
    )


def test_two_contexts() -> None:
    def handler(one: Context, other: Context) -> None: ...

    assert said(handler) == (
        "handler of 'charge' asks for two contexts: one and other\n  next: take one"
    )


@pytest.mark.parametrize("function", [lambda *ids: None, eval("lambda ids, /: None")])
def test_parameters_without_a_name(function: Callable[..., Any]) -> None:
    assert said(function) == (
        "handler of 'charge' has a parameter 'ids' that cannot be passed by name\n"
        "  next: arguments come from a JSON object; drop the * or the /"
    )


def test_a_type_that_json_cannot_carry() -> None:
    def handler(thing: Opaque) -> None: ...

    assert said(handler) == (
        "handler of 'charge' has an argument of a type that JSON cannot carry\n"
        "  why:  Unable to generate pydantic-core schema for <class 'tests.test_payload.Opaque'>\n"
        "  next: use plain types, dataclasses or pydantic models"
    )


def test_an_annotation_that_is_no_type() -> None:
    def handler(thing: Any) -> None: ...

    handler.__annotations__["thing"] = ClassVar[int]
    assert said(handler) == (
        "handler of 'charge' has an argument 'thing' whose annotation is no type\n"
        "  why:  typing.ClassVar[int] is not valid as type argument\n"
        "  next: use plain types, dataclasses or pydantic models"
    )


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        ("Missing", "name 'Missing' is not defined"),
        ("dt.never", "module 'datetime' has no attribute 'never'"),
        ("int[", "Forward reference must be an expression -- got 'int['"),
    ],
)
def test_an_annotation_that_cannot_be_resolved(annotation: str, why: str) -> None:
    def handler(thing: Any) -> None: ...

    handler.__annotations__["thing"] = annotation
    assert said(handler) == (
        "the annotations of handler 'charge' cannot be resolved\n"
        f"  why:  {why}\n"
        "  next: import the names at run time, not under TYPE_CHECKING"
    )


@pytest.mark.parametrize(
    ("thing", "kind"), [(functools.partial(print), "partial"), (Opaque(), "Opaque"), (dict, "type")]
)
def test_what_is_no_function(thing: Any, kind: str) -> None:
    assert said(thing) == (
        "the handler of 'charge' is no function\n"
        f"  why:  it is a {kind}\n"
        "  next: write a `def` or `async def` that calls it"
    )


def test_generators() -> None:
    """Calling one runs nothing: its rows would be done without ever having been run."""

    def handler() -> Iterator[int]:
        yield 1

    async def other() -> AsyncIterator[int]:
        yield 1

    for function in (handler, other):
        assert said(function) == (
            "handler of 'charge' is a generator\n"
            "  why:  calling it runs nothing\n"
            "  next: take the `yield` out; what a handler returns is its result"
        )


def test_an_async_handler_with_a_blocking_session() -> None:
    async def handler(db: psycopg.Connection[Any]) -> None: ...

    assert said(handler) == (
        "handler of 'charge' is `async def` but asks for a psycopg session\n"
        "  why:  that session would block the event loop\n"
        "  next: write it as `def`, or ask for the session's twin"
    )


def test_a_plain_handler_with_an_async_session() -> None:
    def handler(db: asyncpg.Connection) -> None: ...

    assert said(handler) == (
        "handler of 'charge' is `def` but asks for a asyncpg session\n"
        "  why:  it needs an event loop\n"
        "  next: write it as `async def`, or ask for the session's twin"
    )


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("", {}, "a kind is 1 to 200 characters long, not 0"),
        ("x" * 201, {}, "a kind is 1 to 200 characters long, not 201"),
        ("a\0b", {}, "the kind 'a\\x00b' holds what Postgres cannot store"),
        ("k", {"queue": ""}, "a queue is 1 to 200 characters long, not 0"),
        ("k", {"queue": "\ud800"}, "the queue '\\ud800' holds what Postgres cannot store"),
        ("k", {"timeout": -1}, "handler of 'k': timeout=-1 is not 0 or more seconds"),
        (
            "k",
            {"timeout": float("nan")},
            "handler of 'k': timeout=nan is not 0 or more seconds",
        ),
        ("k", {"timeout": "5s"}, "handler of 'k': timeout is a str\n  next: give seconds"),
        (
            "k",
            {"retry": 5},
            "handler of 'k': retry is a int\n"
            "  next: retry=RetryPolicy(stop=tenacity.stop_after_attempt(5))",
        ),
    ],
)
def test_options_that_make_no_sense(kind: str, options: Any, message: str) -> None:
    with pytest.raises(RegistrationError) as refused:
        App().handler(kind, **options)(lambda: None)
    assert str(refused.value) == message


def test_one_kind_with_two_handlers() -> None:
    app = App()

    @app.handler
    def charge() -> None: ...

    with pytest.raises(RegistrationError) as refused:
        app.handler("charge")(test_generators)
    where = "tests.test_payload.test_one_kind_with_two_handlers.<locals>.charge"
    assert str(refused.value) == (
        "kind 'charge' has two handlers\n"
        f"  why:  {where} and tests.test_payload.test_generators\n"
        "  next: give one of them another name: @app.handler('...')"
    )


def test_an_unknown_kind() -> None:
    app = App()
    app.handler("refund")(lambda: None)
    app.handler("charge")(lambda: None)
    with pytest.raises(UnknownKind) as refused:
        app.registry.get("chrage")
    assert str(refused.value) == (
        "no handler is registered for kind 'chrage'\n"
        "  why:  this app registers: charge, refund\n"
        "  next: check the spelling, or import the module that registers it"
    )


def test_one_function_for_two_kinds() -> None:
    """Stacked decorators: the second sees what the first made of the function."""
    app = App()

    @app.handler("charge", retry=RetryPolicy())
    @app.handler("refund")
    async def pay(cents: int) -> None: ...

    assert [handler.kind for handler in app.registry] == ["refund", "charge"]
    assert all(handler.is_async for handler in app.registry)


def test_a_registered_handler_is_still_a_function() -> None:
    @App().handler("double")
    def double(n: int) -> int:
        """Twice."""
        return 2 * n

    assert double(4) == 8
    assert (double.kind, double.__name__, double.__doc__) == ("double", "double", "Twice.")


# -- reading a payload ----------------------------------------------------------------------------


def charge(
    donation: int,
    card: Card,
    money: Money = Money(decimal.Decimal(1)),  # noqa: B008
    at: dt.datetime | None = None,
) -> None: ...


CHARGE, OPEN = signature(charge), signature(lambda **rest: None)


def test_json_becomes_the_types_of_the_signature() -> None:
    args = signature(charge).read(
        '{"donation": 7, "card": {"number": "4", "expires": "2027-02-01"},'
        ' "money": {"amount": "1.50"}, "at": "2026-01-01T00:00:00Z"}'
    )
    assert args == {
        "donation": 7,
        "card": Card(number="4", expires=dt.date(2027, 2, 1)),
        "money": Money(decimal.Decimal("1.50")),
        "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    }


def test_what_was_not_given_is_left_to_the_default() -> None:
    args = signature(charge).read('{"donation":7,"card":{"number":"4","expires":"2027-02-01"}}')
    assert set(args) == {"donation", "card"}


def test_an_open_handler_takes_whatever_comes() -> None:
    def handler(a: int, **rest: Any) -> None: ...

    assert signature(handler).read('{"a":1,"z":[3]}') == {"a": 1, "z": [3]}


def test_a_handler_without_arguments() -> None:
    assert signature(lambda: None).read("{}") == {}
    with pytest.raises(PayloadInvalid, match="it takes: no arguments"):
        signature(lambda: None).read('{"a":1}')


def refusal(args: str, function: Callable[..., Any] = charge) -> str:
    with pytest.raises(PayloadInvalid) as refused:
        signature(function).read(args)
    assert refused.value.what == "the arguments of 'charge' do not fit its handler"
    return refused.value.why


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ("{}", "donation: Field required; card: Field required"),
        ('{"donation":"x"}', "donation: Input should be a valid integer"),
        ('{"donation":1.5}', "donation: Input should be a valid integer"),
        ('{"donation":null}', "donation: Input should be a valid integer"),
        ('{"donation":1,"card":"4"}', "card: Input should be an object"),
        ('{"card":{"number":"4"}}', "card.expires: Field required"),
        ('{"donation":1,"surprise":1}', "surprise: Extra inputs are not permitted"),
        ("[]", "arguments: Input should be an object"),
        ("null", "arguments: Input should be an object"),
        ('"text"', "arguments: Input should be an object"),
        ("", "arguments: Invalid JSON: EOF while parsing"),
        ("{", "arguments: Invalid JSON: EOF while parsing"),
        ('{"donation":%s}' % ("9" * 5000), "arguments: Invalid JSON: number out of range"),
        ('{"donation":"\\ud800"}', "arguments: Invalid JSON"),
        ('{"donation":' + "[" * 3000 + "]" * 3000 + "}", "recursion limit exceeded"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(args: str, why: str) -> None:
    assert why in refusal(args)


def test_of_many_reasons_five_are_told() -> None:
    def handler(a: int, b: int, c: int, d: int, e: int, f: int, g: int) -> None: ...

    assert refusal("{}", handler).endswith("e: Field required; and 2 more")


def test_the_payload_is_not_in_the_message() -> None:
    assert "4111" not in refusal('{"donation":"4111","card":{"number":4111}}')


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers()
        | st.text(st.characters(exclude_categories=())),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_no_payload_does_worse_than_being_refused(value: Any) -> None:
    for text in (json.dumps(value), json.dumps({"donation": value, "card": value})):
        for read in (CHARGE.read, OPEN.read):
            with contextlib.suppress(PayloadInvalid):
                assert isinstance(read(text), dict)


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    with pytest.raises((PayloadInvalid, UnicodeEncodeError)):
        CHARGE.read(text)


# -- writing one ----------------------------------------------------------------------------------


def test_producers_may_give_what_pydantic_can_write() -> None:
    def handler(**rest: Any) -> None: ...

    key = uuid.UUID(int=5)
    given = {
        "card": Card(number="4", expires=dt.date(2027, 2, 1)),
        "money": Money(decimal.Decimal(5)),
        "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "key": key,
        "tags": {"a"},
    }
    assert json.loads(signature(handler).write(given)) == {
        "card": {"number": "4", "expires": "2027-02-01"},
        "money": {"amount": "5", "currency": "EUR"},
        "at": "2026-01-01T00:00:00Z",
        "key": str(key),
        "tags": ["a"],
    }


def endless() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (float("nan"), "Out of range float values are not JSON compliant"),
        (float("inf"), "Out of range float values are not JSON compliant"),
        (object(), "Unable to serialize unknown type: <class 'object'>"),
        (Opaque(), "Unable to generate pydantic-core schema for <class '{}.Opaque'>"),
        (b"\xff", "Error serializing to JSON: invalid utf-8 sequence of 1 bytes from index 0"),
        ({("a", 1): 2}, "keys must be str, int, float, bool or None, not tuple"),
        (endless(), "Circular reference detected"),
        (
            functools.reduce(lambda inner, _: [inner], range(100_000), [1]),
            "maximum recursion depth",
        ),
    ],
)
def test_what_is_not_json_is_refused(value: Any, why: str) -> None:
    with pytest.raises(PayloadInvalid) as refused:
        signature(lambda thing: None).write({"thing": value})
    assert refused.value.what == "the arguments of 'charge' are not JSON"
    assert refused.value.why.startswith(why.format(__name__))


def test_a_job_is_checked_against_its_handler() -> None:
    @App().handler("charge", queue="payments")
    def charge(donation: int) -> None: ...

    job = charge.job({"donation": 7}, priority=-1)
    assert (job.kind, job.queue, job.args, job.priority) == (
        "charge",
        "payments",
        {"donation": 7},
        -1,
    )
    with pytest.raises(DuerowError) as refused:
        charge.job({"donatoin": 7})
    assert str(refused.value) == (
        "the arguments of 'charge' do not fit its handler\n"
        "  why:  donation: Field required; donatoin: Extra inputs are not permitted\n"
        "  next: it takes: donation"
    )
