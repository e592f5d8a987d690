"""Names of tables and columns as people write them. Pure."""

from __future__ import annotations

import pytest

from worker.errors import UsageError
from worker.tables.names import columns_of, parts_of, quoted
from worker.tables.spec import index_name


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("donations", ("donations",)),
        ("Donations", ("donations",)),
        ("shop.Orders", ("shop", "orders")),
        ('"Mixed Case"', ("Mixed Case",)),
        ('shop."Orders"', ("shop", "Orders")),
        ('"a.b"."c""d"', ("a.b", 'c"d')),
        ("_x$1", ("_x$1",)),
        (" shop . orders ", ("shop", "orders")),
        ("Größe", ("größe",)),
        ("ÄPFEL", ("Äpfel",)),  # Postgres folds ASCII alone in UTF-8
        ("x" * 63, ("x" * 63,)),
        ('"; drop table x; --"', ("; drop table x; --",)),
    ],
)
def test_a_name_is_read_as_sql_reads_it(text: str, parts: tuple[str, ...]) -> None:
    assert parts_of(text) == parts


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b", "a..b", ".a", "a.", '"a', 'a"', '""', "1a", "a-b", "a;b", "a\0b", '"a\0"'],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parts_of(text)
    assert refused.value.what == f"{text!r} is not the name of a table"
    assert "'\"Mixed Case\"'" in refused.value.hint


def test_a_database_is_not_part_of_a_name() -> None:
    with pytest.raises(UsageError) as refused:
        parts_of("prod.shop.orders")
    assert str(refused.value) == (
        "'prod.shop.orders' has 3 parts\n"
        "  why:  a table is named by itself or with its schema; a database is chosen by the URL\n"
        '  next: write "shop"."orders"'
    )


@pytest.mark.parametrize("name", ["x" * 64, "é" * 32, '"' + "y" * 64 + '"', "shop." + "x" * 64])
def test_a_name_is_never_cut(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        parts_of(name)
    assert "is 64 bytes long" in refused.value.what
    assert "Postgres keeps 63" in refused.value.why


def test_quoting_is_undone_by_reading() -> None:
    for parts in [("a",), ("Mixed Case", 'q"uote'), ("a.b", "ü")]:
        assert parts_of(quoted(parts)) == parts


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("id", ("id",)),
        ("org_id, id", ("org_id", "id")),
        ("NextAt", ("NextAt",)),
        ('"a,b",c', ("a,b", "c")),
        ('"say ""hi"""', ('say "hi"',)),
        ("two words", ("two words",)),
    ],
)
def test_columns_are_exact_names(text: str, names: tuple[str, ...]) -> None:
    assert columns_of(text) == names


@pytest.mark.parametrize("text", ["", " ", ",", "a,", ",a", "a,,b", "a,a", '"a', '""', "x" * 64])
def test_what_is_no_list_of_columns_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        columns_of(text)


@pytest.mark.parametrize("table", ["t", "x" * 52, "x" * 53, "x" * 63, "é" * 31, "Mixed Case"])
def test_the_name_of_the_index_fits(table: str) -> None:
    assert len(index_name(table).encode()) <= 63
    assert index_name(table).startswith("duerow_due_")


def test_tables_with_a_long_common_prefix_get_different_indexes() -> None:
    assert index_name("x" * 62 + "a") != index_name("x" * 62 + "b")
