"""What a handler of an adopted table wants to be given: which columns, and in what shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_origin, get_type_hints, is_typeddict

import pydantic
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from worker.errors import PayloadInvalid, RegistrationError
from worker.itemtype import of_extensions


class RowType:
    """The type of a handler's row parameter: a dataclass, a pydantic model, a TypedDict, or a
    mapping, which gets every column.

    Raises RegistrationError for anything else.
    """

    def __init__(self, kind: str, annotation: Any) -> None:
        self._kind = kind
        self._type = annotation
        self._named = _columns_of(kind, annotation)
        self._adapter = None if self._named is None else _adapter(kind, annotation)

    def columns(self, of_table: Sequence[str]) -> tuple[str, ...]:
        """Which of a table's columns to read. Raises RegistrationError for one it has not got."""
        if self._named is None:
            return tuple(c for c in of_table if not c.startswith("duerow_"))
        missing = [c for c, required in self._named.items() if required and c not in of_table]
        if missing:
            raise RegistrationError(
                f"the row type of {self._kind!r} names columns that the table has not got: "
                f"{', '.join(missing)}",
                why=f"the table has: {', '.join(c for c in of_table if c[:7] != 'duerow_')}",
                hint="name the fields as the columns are named",
            )
        return tuple(c for c in self._named if c in of_table)

    def build(self, values: dict[str, Any]) -> Any:
        """The row in the handler's type. Raises PayloadInvalid where a value does not fit."""
        if self._adapter is None:
            return values
        try:
            return self._adapter.validate_python(values)
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            raise PayloadInvalid(
                f"a row of {self._kind!r} does not fit {self._type.__name__}",
                why="; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found[:5]),
                hint="widen the field's type, or leave such rows out with where=...",
            ) from None


def _adapter(kind: str, annotation: Any) -> TypeAdapter[Any]:
    if is_typeddict(annotation):
        annotation = of_extensions(annotation)
    try:
        return TypeAdapter(annotation)
    except (pydantic.PydanticUserError, TypeError) as error:
        raise RegistrationError(
            f"the row type of {kind!r} has a field of a type that cannot be checked",
            why=str(error).partition("\n")[0],
            hint="annotate it with a plain type, or with Any",
        ) from None


def _columns_of(kind: str, annotation: Any) -> dict[str, bool] | None:
    """Column -> whether it is required; None for a mapping of all."""
    origin = get_origin(annotation) or annotation
    if origin is Any or (
        isinstance(origin, type) and not is_typeddict(origin) and issubclass(origin, Mapping)
    ):
        return None
    if is_typeddict(annotation):
        return {name: name in annotation.__required_keys__ for name in get_type_hints(annotation)}
    if dataclasses.is_dataclass(annotation):
        return {
            f.name: f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            for f in dataclasses.fields(annotation)
            if f.init
        }
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return {
            _column(name, field): field.is_required()
            for name, field in annotation.model_fields.items()
        }
    raise RegistrationError(
        f"the handler of table {kind!r} asks for its row as {annotation!r}",
        why="that says nothing of which columns to read",
        hint="use a dataclass, a pydantic model, a TypedDict, or dict",
    )


def _column(name: str, field: FieldInfo) -> str:
    """The column that a model's field is filled from: an alias is one."""
    return field.validation_alias if isinstance(field.validation_alias, str) else name
