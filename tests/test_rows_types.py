"""What a handler of adopted rows is given: shapes, column types, keys and names."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Mapping
from typing import Any, TypedDict

import asyncpg
import pydantic
import pytest

from tests.adopted import adopt, make_donations, outcomes
from tests.workers import drained
from worker import App

LIMB = """
create type mood as enum ('calm', 'cross');
create table wide (
    id      bigint generated always as identity primary key,
    next_at timestamptz default '2026-01-01 12:00+02',
    doc     jsonb default '{"a": [1, {"b": null}]}',
    docs    jsonb[] default array['1'::jsonb, '{"x": 2}'],
    plain   json default '"x"',
    price   numeric(10, 2) default 12.50,
    feeling mood default 'cross',
    tags    text[] default '{a,b}',
    ref     uuid default '00000000-0000-0000-0000-000000000007',
    seen_at timestamptz default '2026-01-02 03:04:05.000006+00',
    day     date default '2026-01-03',
    raw     bytea default '\\x00ff',
    nothing text
)
"""


class Feeling(enum.Enum):
    CALM = "calm"
    CROSS = "cross"


@dataclasses.dataclass
class AsDataclass:
    id: int
    doc: dict[str, Any]
    docs: list[Any]
    plain: str
    price: decimal.Decimal
    feeling: Feeling
    tags: list[str]
    ref: uuid.UUID
    seen_at: dt.datetime
    day: dt.date
    raw: bytes
    nothing: str | None
    absent: int = 5


class AsModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    id: int
    cost: decimal.Decimal = pydantic.Field(alias="price")
    mood: Feeling = pydantic.Field(validation_alias="feeling")
    doc: dict[str, Any]


@dataclasses.dataclass
class Amount:
    amount: int


class AsTypedDict(TypedDict):
    id: int
    price: decimal.Decimal
    tags: list[str]


EXPECTED = AsDataclass(
    id=1,
    doc={"a": [1, {"b": None}]},
    docs=[1, {"x": 2}],
    plain="x",
    price=decimal.Decimal("12.50"),
    feeling=Feeling.CROSS,
    tags=["a", "b"],
    ref=uuid.UUID(int=7),
    seen_at=dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    day=dt.date(2026, 1, 3),
    raw=b"\x00\xff",
    nothing=None,
)


async def given(db_url: str, apg: asyncpg.Connection, annotation: Any) -> Any:
    """What a handler whose row is annotated so gets."""
    await apg.execute(LIMB)
    await adopt(apg, "wide")
    await apg.execute("insert into wide default values")
    app, got = App(), []

    async def handler(row: Any) -> None:
        got.append(row)

    handler.__annotations__["row"] = annotation
    app.rows("wide", due="next_at")(handler)
    await drained(app, db_url)
    assert (await outcomes(apg)) == [(1, "done")]
    [row] = got
    return row


async def test_a_dataclass_with_every_type(db_url: str, apg: asyncpg.Connection) -> None:
    assert await given(db_url, apg, AsDataclass) == EXPECTED


async def test_a_pydantic_model_with_aliases(db_url: str, apg: asyncpg.Connection) -> None:
    row = await given(db_url, apg, AsModel)
    assert row == AsModel(id=1, cost=decimal.Decimal("12.50"), feeling="cross", doc=EXPECTED.doc)


async def test_a_typed_dict(db_url: str, apg: asyncpg.Connection) -> None:
    row = await given(db_url, apg, AsTypedDict)
    assert row == {"id": 1, "price": decimal.Decimal("12.50"), "tags": ["a", "b"]}


@pytest.mark.parametrize("annotation", [dict, dict[str, Any], Mapping[str, Any], Any])
async def test_a_mapping_gets_every_column_but_ours(
    db_url: str, apg: asyncpg.Connection, annotation: Any
) -> None:
    row = await given(db_url, apg, annotation)
    names = "id next_at doc docs plain price feeling tags ref seen_at day raw nothing"
    assert list(row) == names.split()
    assert row["feeling"] == "cross"
    assert row["doc"] == EXPECTED.doc
    assert row["next_at"] == dt.datetime(2026, 1, 1, 10, tzinfo=dt.UTC)


async def test_only_the_named_columns_are_read(db_url: str, apg: asyncpg.Connection) -> None:
    """The role of the worker may not read any other."""
    await make_donations(apg, 1)
    role = "reader_" + uuid.uuid4().hex[:8]
    await apg.execute(f"create role {role} login")
    try:
        await apg.execute(f"grant usage on schema worker to {role}")
        await apg.execute(f"grant all on all tables in schema worker to {role}")
        ours = "duerow_owner, duerow_token, duerow_attempt, duerow_crashes, duerow_claimed_at,"
        ours += " duerow_retry_at, duerow_held_for, duerow_state, duerow_error"
        await apg.execute(
            f"grant select (ctid, tableoid, id, amount, next_at, {ours}) on donations to {role}"
        )
        await apg.execute(f"grant update (next_at, {ours}) on donations to {role}")
        app, got = App(), []

        @app.rows("donations", due="next_at")
        async def charge(row: Amount) -> None:
            got.append(row.amount)

        await drained(app, _as_role(db_url, role))
        assert got == [1]
    finally:
        await apg.execute(f"drop owned by {role}")
        await apg.execute(f"drop role {role}")


def _as_role(url: str, role: str) -> str:
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}@{host}"))
