"""Alembic's --autogenerate, after a table was adopted."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import BigInteger, Column, DateTime, Integer, MetaData, Table, create_engine

from tests.adoption import adopt
from worker.tables.autogenerate import include_object
from worker.url import DatabaseURL

METADATA = MetaData()
DONATIONS = Table(
    "donations",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("due_at", DateTime(timezone=True)),
)


@pytest.fixture
def engine(db_url: str) -> Any:
    engine = create_engine(DatabaseURL.parse(db_url).sqlalchemy_url("psycopg"))
    METADATA.create_all(engine)
    adopt(db_url, "donations", "--due", "due_at")
    yield engine
    engine.dispose()


def proposed(engine: Any, metadata: MetaData, **options: Any) -> list[Any]:
    with engine.connect() as connection:
        opts = {"include_schemas": True, **options}
        return compare_metadata(MigrationContext.configure(connection, opts=opts), metadata)


def test_it_proposes_to_drop_nothing_of_ours(engine: Any) -> None:
    assert proposed(engine, METADATA, include_object=include_object) == []


def test_without_it_it_would(engine: Any) -> None:
    dropped = [
        change[3].name for change in proposed(engine, METADATA) if change[0] == "remove_column"
    ]
    assert "duerow_token" in dropped


def test_it_goes_on_proposing_the_users_own_changes(engine: Any) -> None:
    changed = MetaData()
    Table("donations", changed, Column("id", BigInteger, primary_key=True), Column("new", Integer))
    proposals = proposed(engine, changed, include_object=include_object)
    assert sorted(change[0] for change in proposals) == ["add_column", "remove_column"]
