"""Reads a handler's signature once; then turns a row's JSON into its arguments.

Parameters fall into three groups, told apart by their annotation: the context, the session, and
everything else, which is the payload, validated by pydantic in JSON mode. Unknown and missing
arguments are errors. A handler with `**args: Any` takes whatever comes. A handler of batches has
one parameter annotated `Batch[T]` instead, and T is the shape of each row's payload.
"""

from __future__ import annotations

import inspect
import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NotRequired, Required, Union, get_args, get_origin, get_type_hints

import pydantic
from pydantic import ConfigDict, PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter
from typing_extensions import TypedDict

from worker.context import Context
from worker.errors import PayloadInvalid, RegistrationError
from worker.items import Batch
from worker.itemtype import item_adapter
from worker.lazy import Lazy

# The session kinds, by the public name of the annotation: nothing is imported to compare.
SESSIONS: dict[tuple[str, str], str] = {
    ("asyncpg", "Connection"): "asyncpg",
    ("psycopg", "Connection"): "psycopg",
    ("psycopg", "AsyncConnection"): "psycopg-async",
    ("sqlalchemy.ext.asyncio", "AsyncSession"): "sqlalchemy-async",
    ("sqlalchemy.orm", "Session"): "sqlalchemy",
}
ASYNC_SESSIONS = frozenset({"asyncpg", "psycopg-async", "sqlalchemy-async"})


@dataclass(frozen=True, slots=True)
class Signature:
    """How to call a handler.

    context, session: the names of those parameters, or None. session_kind: a value of SESSIONS.
    lazy: the handler opens its session itself.
    batch: the name of the parameter that takes several rows at once, or None; item: the type of
        each one's data.
    """

    kind: str
    context: str | None
    session: str | None
    session_kind: str | None
    lazy: bool
    fields: frozenset[str]
    open_ended: bool
    _adapter: TypeAdapter[Any] | None  # None: the payload is no JSON, but a row
    batch: str | None = None
    item: Any = None

    def read(self, args: str) -> dict[str, Any]:
        """The payload arguments in `args`, a JSON object. Raises PayloadInvalid."""
        if not self.fields and not self.open_ended and args == "{}":
            return {}
        arguments: dict[str, Any] = self.read_item(args)
        return arguments

    def read_item(self, args: str) -> Any:
        """The data of a batch's row in `args`, a JSON object. Raises PayloadInvalid."""
        assert self._adapter is not None
        try:
            return self._adapter.validator.validate_json(args)  # validate_json() asks for more
        except pydantic.ValidationError as error:
            raise PayloadInvalid(
                f"the arguments of {self.kind!r} do not fit its handler",
                why=_reasons(error),
                hint=f"it takes: {', '.join(sorted(self.fields)) or 'no arguments'}",
            ) from None

    def write(self, args: dict[str, Any]) -> str:
        """`args` as JSON text, after the same check. For producers. Raises PayloadInvalid."""
        try:
            text = json.dumps(args, default=_plain, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError, PydanticUserError) as error:
            raise PayloadInvalid(
                f"the arguments of {self.kind!r} are not JSON", why=_first_sentence(error)
            ) from None
        self.read_item(text)
        return text


def _plain(value: Any) -> Any:
    """Dates, decimals, UUIDs, dataclasses and models as pydantic writes them in JSON."""
    return json.loads(TypeAdapter(type(value)).dump_json(value))


def _first_sentence(error: Exception) -> str:
    """Without pydantic's advice, which is of no use here."""
    return str(error).partition("\n")[0].partition(". Set `")[0]


def _reasons(error: pydantic.ValidationError) -> str:
    found = [
        f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}"
        for e in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")


def read_signature(kind: str, function: Callable[..., Any], *, of_rows: bool = False) -> Signature:
    """Raises RegistrationError where a worker could never call `function` by name.

    of_rows: it takes the rows of an adopted table, which need not fit into JSON.
    """
    hints = _hints(kind, function)
    context = session = session_kind = batch = None
    fields: dict[str, Any] = {}
    item: Any = None
    open_ended = lazy = False
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = hints.get(name, Any)
        given = _without_none(annotation)
        if given is Context:
            if context is not None:
                raise RegistrationError(
                    f"handler of {kind!r} asks for two contexts: {context} and {name}",
                    hint="take one",
                )
            context = name
        elif (found := session_of(given)) is not None:
            if session is not None:
                raise RegistrationError(
                    f"handler of {kind!r} asks for two sessions: {session} and {name}",
                    hint="take one; a row is settled in the transaction of one session",
                )
            session, session_kind = name, found
            lazy = get_origin(given) is Lazy
        elif Batch in (given, get_origin(given)):
            batch, item = name, next(iter(get_args(given)), dict)
        elif parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise RegistrationError(
                f"handler of {kind!r} has a parameter {name!r} that cannot be passed by name",
                hint="arguments come from a JSON object; drop the * or the /",
            )
        else:
            fields[name] = _field(kind, name, annotation, parameter)
    if batch is not None:
        others = [*fields, *([context] if context else ()), *(["**"] if open_ended else ())]
        _refuse_beside_batch(kind, others)
        names, more, adapter = (frozenset(), False, None) if of_rows else item_adapter(kind, item)
        return Signature(kind, None, session, session_kind, lazy, names, more, adapter, batch, item)
    return Signature(
        kind,
        context,
        session,
        session_kind,
        lazy,
        frozenset(fields),
        open_ended,
        None if of_rows else _adapter(kind, fields, open_ended),
    )


def _refuse_beside_batch(kind: str, others: list[str]) -> None:
    if others:
        raise RegistrationError(
            f"handler of {kind!r} takes a batch and {', '.join(others)}",
            why="what its rows carry differs from row to row",
            hint="take it from each row: item.data, item.context",
        )


def _field(kind: str, name: str, annotation: Any, parameter: inspect.Parameter) -> Any:
    try:
        required = parameter.default is parameter.empty
        return Required[annotation] if required else NotRequired[annotation]
    except TypeError as error:
        raise RegistrationError(
            f"handler of {kind!r} has an argument {name!r} whose annotation is no type",
            why=str(error),
            hint="use plain types, dataclasses or pydantic models",
        ) from None


def _hints(kind: str, function: Callable[..., Any]) -> dict[str, Any]:
    if not inspect.isroutine(function):
        raise RegistrationError(
            f"the handler of {kind!r} is no function",
            why=f"it is a {type(function).__name__}",
            hint="write a `def` or `async def` that calls it",
        )
    try:
        inspect.signature(function)
        return get_type_hints(function, include_extras=True)
    except Exception as error:  # an annotation in quotes may be any expression
        raise RegistrationError(
            f"the annotations of handler {kind!r} cannot be resolved",
            why=str(error),
            hint="import the names at run time, not under TYPE_CHECKING",
        ) from None


def _without_none(annotation: Any) -> Any:
    """`X | None` as X: a handler may default its context or session to None for its own tests."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    rest = [one for one in get_args(annotation) if one is not types.NoneType]
    return rest[0] if len(rest) == 1 else annotation


def _adapter(kind: str, fields: dict[str, Any], open_ended: bool) -> TypeAdapter[dict[str, Any]]:
    try:
        make: Any = TypedDict  # made at run time, which no type checker can follow
        shape = make("Arguments", fields)
        shape.__pydantic_config__ = ConfigDict(extra="allow" if open_ended else "forbid")
        return TypeAdapter(shape)
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError) as error:
        raise RegistrationError(
            f"handler of {kind!r} has an argument of a type that JSON cannot carry",
            why=_first_sentence(error),
            hint="use plain types, dataclasses or pydantic models",
        ) from None


def session_of(annotation: Any) -> str | None:
    """Which kind of session an annotation asks for, if any. Subclasses count."""
    if get_origin(annotation) is Lazy:
        [annotation] = get_args(annotation)
    cls = get_origin(annotation) or annotation
    if not isinstance(cls, type):
        return None
    for (module_name, name), session in SESSIONS.items():
        module = sys.modules.get(module_name)
        if module is not None and issubclass(cls, getattr(module, name)):
            return session
    return None
