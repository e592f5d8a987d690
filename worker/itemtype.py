"""The type that a handler of batches names for what each of its jobs carries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NotRequired, Required, get_origin, get_type_hints, is_typeddict

import pydantic
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from worker.errors import RegistrationError

STRICT = ConfigDict(extra="forbid")


def item_adapter(kind: str, of: Any) -> tuple[frozenset[str], bool, TypeAdapter[Any]]:
    """The names of its fields, whether it takes others too, and what reads it. Unknown names are
    errors, but where a pydantic model says otherwise itself. Raises RegistrationError."""
    plain = get_origin(of) or of
    try:
        if of is Any or (
            isinstance(plain, type) and not is_typeddict(plain) and issubclass(plain, Mapping)
        ):
            return frozenset(), True, TypeAdapter(dict[str, Any] if of in (Any, dict) else of)
        if is_typeddict(of):
            strict = of_extensions(of)
            strict.__pydantic_config__ = STRICT
            return frozenset(get_type_hints(of)), False, TypeAdapter(strict)
        if dataclasses.is_dataclass(of):
            names = frozenset(f.name for f in dataclasses.fields(of) if f.init)
            return names, False, _strict_dataclass(of)
        if isinstance(of, type) and issubclass(of, pydantic.BaseModel):
            return frozenset(of.model_fields), False, TypeAdapter(of)
    except (pydantic.PydanticUserError, pydantic.PydanticUndefinedAnnotation, TypeError) as error:
        raise RegistrationError(
            f"the rows of {kind!r} have a field of a type that JSON cannot carry",
            why=str(error).partition("\n")[0].partition(". Set `")[0],
            hint="use plain types, dataclasses or pydantic models",
        ) from None
    raise RegistrationError(
        f"the batch of {kind!r} asks for each row as {of!r}",
        why="a job carries a JSON object",
        hint="use a dataclass, a pydantic model, a TypedDict, or dict",
    )


def _strict_dataclass(of: Any) -> TypeAdapter[Any]:
    """pydantic reads the configuration off the class, and only while it makes the adapter."""
    if hasattr(of, "__pydantic_config__"):
        return TypeAdapter(of)
    of.__pydantic_config__ = STRICT
    try:
        return TypeAdapter(of)
    finally:
        del of.__pydantic_config__


def of_extensions(typed: Any) -> Any:
    """Before Python 3.12 pydantic knows the TypedDict of typing_extensions alone."""
    required = typed.__required_keys__
    hints = get_type_hints(typed)
    fields = {n: Required[h] if n in required else NotRequired[h] for n, h in hints.items()}
    make: Any = TypedDict  # made at run time, which no type checker can follow
    return make(typed.__name__, fields)
