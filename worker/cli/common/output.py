"""What a verb gives, on stdout: a table on a terminal, TSV in a pipe, JSON when asked for.

TSV has a line of names and one line a row; tabs, newlines and backslashes in values are escaped
as in Postgres's COPY, and nothing is ever coloured. `--json` is one object, or one a line.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import click

from worker.cli.common.terminal import colours, is_terminal, printable
from worker.duration import format_duration

Row = Mapping[str, Any]

json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object, or one a line."
)

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def show_rows(
    rows: Iterable[Row], columns: Sequence[str], *, as_json: bool, header: bool = True
) -> None:
    """Any number of rows. columns: which of their values a table has, and in what order; JSON has
    them all. header: the line of names in TSV."""
    found = list(rows)
    if as_json:
        for row in found:
            _write(as_json_text(row))
    elif is_terminal(sys.stdout):
        _table(found, columns)
    else:
        if header:
            _write("\t".join(columns))
        for row in found:
            _write("\t".join(plain(row[name]).translate(_ESCAPES) for name in columns))


def show_record(record: Row, *, as_json: bool) -> None:
    """One thing: JSON, or a line for each of its values."""
    if as_json:
        _write(as_json_text(record))
    elif is_terminal(sys.stdout):
        _pairs(record)
    else:
        for name, value in record.items():
            _write(f"{name}\t{plain(value).translate(_ESCAPES)}")


def show_with(
    record: Row, name: str, rows: Sequence[Row], columns: Sequence[str], *, as_json: bool
) -> None:
    """One thing, and the rows that belong to it: below it, or in its JSON as `name`."""
    if as_json:
        show_record({**record, name: rows}, as_json=True)
        return
    show_record(record, as_json=False)
    if rows:
        click.echo()
        show_rows(rows, columns, as_json=False)


def show_text(text: str) -> None:
    """Text as it stands, such as SQL."""
    _write(text.rstrip("\n"))


def as_json_text(value: Any) -> str:
    return json.dumps(value, default=_for_json, ensure_ascii=False, separators=(",", ":"))


def plain(value: Any) -> str:
    """A value in TSV: nothing for None, ISO 8601 in UTC for a time, seconds for a duration."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case dt.datetime():
            return _iso(value)
        case dt.timedelta():
            return plain(value.total_seconds())
        case list() | tuple():
            return ",".join(map(plain, value))
        case dict():
            return as_json_text(value)
        case float():
            return f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value)


def readable(value: Any) -> str:
    """A value for a person: times in the local zone, lists with spaces, nothing that could drive
    the terminal."""
    if isinstance(value, dt.datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, dt.timedelta):
        return format_duration(value.total_seconds())
    if isinstance(value, list | tuple):
        return ", ".join(map(readable, value))
    return printable(plain(value))


def _for_json(value: Any) -> Any:
    match value:
        case dt.datetime():
            return _iso(value)
        case dt.timedelta():
            return value.total_seconds()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
    return str(value)


def _iso(moment: dt.datetime) -> str:
    text = moment.astimezone(dt.UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _write(line: str) -> None:
    try:
        sys.stdout.write(line + "\n")
    except BrokenPipeError:  # the reader has seen enough, as in `worker jobs list | head`
        raise click.exceptions.Exit(0) from None


def _console() -> Any:
    from rich.console import Console

    return Console(
        file=sys.stdout,
        color_system="auto" if colours(sys.stdout) else None,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    if not rows:
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        numeric = all(isinstance(row[name], int | float | None) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(readable(row[name])) for name in columns))
    _console().print(table)


def _pairs(record: Row) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in record.items():
        if value is not None:
            table.add_row(name, Text(readable(value)))
    _console().print(table)
