"""Reads a handler's signature once; then turns a row's JSON into its arguments.

Parameters fall into three groups, told apart by their annotation: the context, the session, and
everything else, which is the payload, validated by pydantic in JSON mode. Unknown and missing
arguments are errors. A handler with `**args: Any` takes whatever comes.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NotRequired, Required, get_origin, get_type_hints

import pydantic
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from worker.context import Context
from worker.errors import PayloadInvalid, RegistrationError

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
    """

    kind: str
    context: str | None
    session: str | None
    session_kind: str | None
    fields: frozenset[str]
    open_ended: bool
    _adapter: TypeAdapter[dict[str, Any]]

    def read(self, args: str) -> dict[str, Any]:
        """The payload arguments in `args`, a JSON object. Raises PayloadInvalid."""
        if not self.fields and not self.open_ended and args == "{}":
            return {}
        try:
            return self._adapter.validate_json(args)
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
        except (TypeError, ValueError, RecursionError) as error:
            raise PayloadInvalid(
                f"the arguments of {self.kind!r} are not JSON", why=str(error)
            ) from None
        self.read(text)
        return text


def _plain(value: Any) -> Any:
    """Dates, decimals, UUIDs, dataclasses and models as pydantic writes them in JSON."""
    return json.loads(TypeAdapter(type(value)).dump_json(value))


def _reasons(error: pydantic.ValidationError) -> str:
    found = [
        f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}"
        for e in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")


def read_signature(kind: str, function: Callable[..., Any]) -> Signature:
    """Raises RegistrationError where a worker could never call `function` by name."""
    hints = _hints(kind, function)
    context = session = session_kind = None
    fields: dict[str, Any] = {}
    open_ended = False
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = hints.get(name, Any)
        if annotation is Context:
            context = name
        elif (found := session_of(annotation)) is not None:
            if session is not None:
                raise RegistrationError(
                    f"handler of {kind!r} asks for two sessions: {session} and {name}",
                    hint="take one; a row is settled in the transaction of one session",
                )
            session, session_kind = name, found
        elif parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise RegistrationError(
                f"handler of {kind!r} has a parameter {name!r} that cannot be passed by name",
                hint="arguments come from a JSON object; drop the * or the /",
            )
        else:
            required = parameter.default is parameter.empty
            fields[name] = Required[annotation] if required else NotRequired[annotation]
    return Signature(
        kind,
        context,
        session,
        session_kind,
        frozenset(fields),
        open_ended,
        _adapter(kind, fields, open_ended),
    )


def _hints(kind: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise RegistrationError(
            f"the annotations of handler {kind!r} cannot be resolved",
            why=str(error),
            hint="import the names at run time, not under TYPE_CHECKING",
        ) from None


def _adapter(kind: str, fields: dict[str, Any], open_ended: bool) -> TypeAdapter[dict[str, Any]]:
    try:
        make: Any = TypedDict  # made at run time, which no type checker can follow
        shape = make("Arguments", fields)
        shape.__pydantic_config__ = ConfigDict(extra="allow" if open_ended else "forbid")
        return TypeAdapter(shape)
    except pydantic.PydanticSchemaGenerationError as error:
        raise RegistrationError(
            f"handler of {kind!r} has an argument of a type that JSON cannot carry",
            why=str(error).splitlines()[0],
            hint="use plain types, dataclasses or pydantic models",
        ) from None


def session_of(annotation: Any) -> str | None:
    """Which kind of session an annotation asks for, if any. Subclasses count."""
    cls = get_origin(annotation) or annotation
    if not isinstance(cls, type):
        return None
    for (module_name, name), session in SESSIONS.items():
        module = sys.modules.get(module_name)
        if module is not None and issubclass(cls, getattr(module, name)):
            return session
    return None
