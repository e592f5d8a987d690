"""An adopted table as a source of rows: the statements of sql/sources/ with its names put in.

Names are quoted once, here, by the driver's own quoting; the condition is the developer's SQL and
is put in as it stands. After that the text never changes, so each statement is prepared once.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from psycopg import sql

from worker.errors import PayloadInvalid
from worker.fair import LIST, VISIT, Fair, Kind, Listing, between, listing
from worker.link import Fetches, Link
from worker.moment import seconds_of
from worker.row import Row
from worker.source import BEGINNING, Settlement, Statement, Stream
from worker.statements import statement
from worker.tables.bookkeeping import turn_expression
from worker.tables.spec import TableSpec


class Layout(Protocol):
    """What the catalog says of an adopted table: see worker.tables.description."""

    @property
    def oid(self) -> int: ...
    @property
    def schema(self) -> str: ...
    @property
    def table(self) -> str: ...
    @property
    def partitioned(self) -> bool: ...
    @property
    def types(self) -> Mapping[str, str]:
        """The SQL type of each of its columns, by exact name."""


class Rows:
    """A table that a user already has.

    reads: the columns handed to the handler.
    fair: how tenants take turns, if they do; the table has an index for that.
    """

    orphans_every = 60.0  # it walks over what is due

    def __init__(
        self, spec: TableSpec, layout: Layout, reads: Sequence[str], fair: Fair | None = None
    ) -> None:
        self.name = spec.name
        self.oid = layout.oid
        self._keys = len(spec.key)
        self._ordered = spec.order is not None
        self._reads = tuple(reads)
        self._json = frozenset(c for c in reads if layout.types[c] in _JSON)
        self._naive = layout.types[spec.due].startswith("timestamp without")
        names = _names(spec, layout, reads)
        self.claim_sql = _filled(_claim(spec, layout), names)
        self._fair = fair
        self.has_tenants = spec.tenant is not None
        self.claims_one_each = self.has_tenants and not layout.partitioned
        self.tenants_sql = self.claim_tenants_sql = self.claim_one_each_sql = ""
        if spec.tenant is not None:
            by_tenant = "claim_tenants_partitioned" if layout.partitioned else "claim_tenants"
            self.claim_tenants_sql = _filled(by_tenant, names)
            self.tenants_sql = _filled("tenants", names)
            if self.claims_one_each:  # a ctid alone names no row of several partitions
                self.claim_one_each_sql = _filled("claim_one_each", names)
            self._span = _filled("span", names)
            self._tenant_kind = _TENANT_KINDS.get(names["tenant_type"].as_string(None))
        self._next_due = _filled("next_due", names)
        self._disown = _filled("disown", names)
        self._settle = _filled("settle", {**names, "or_skip": sql.SQL(" skip locked")})
        self._settle_waiting = _filled("settle", {**names, "or_skip": sql.SQL("")})
        self._confirm = _filled("confirm", names)
        self._sweep = _filled("sweep", names)
        self._cut = _filled("cut", names)
        self._orphans = _filled("orphans", names)
        self._abandon = _filled("abandon", names)
        self._redrive = _filled("redrive", names)
        self._left = _filled("left", names)

    async def claim(
        self,
        link: Fetches,
        streams: Sequence[Stream],
        floors: bool,
        limit: int,
        worker: int,
        *,
        gated: bool = False,
    ) -> list[Row]:
        floor = FIRST
        if floors and not self._ordered:  # rows of a later rank are left behind an ordered claim
            floor = max(FIRST, streams[0].floor[0])
        records = await link.fetch(self.claim_sql, worker, limit, self._as_stored(floor), gated)
        records.sort(key=lambda record: (record["rank"], record["due_at"]))
        return [self._row(record, worker) for record in records]

    async def streams(self, link: Link, known: Sequence[Stream] = ()) -> list[Stream]:
        [record] = await link.fetch(self._next_due)
        next_in = record["next_in"]
        next_due = None if next_in is None else time.monotonic() + next_in
        return [Stream(self.name, self.name, 0, BEGINNING, next_due, self._fair)]

    async def tenants(self, link: Link, stream: Stream, after: str | None) -> Listing:
        if after is None and self._tenant_kind is not None:
            [(first, last)] = await link.fetch(self._span)
            after = None if first is None else between(first, last, self._tenant_kind)
        return listing(await link.fetch(self.tenants_sql, after, LIST, VISIT))

    async def claim_tenants(
        self,
        link: Fetches,
        stream: Stream,
        tenants: Sequence[str],
        most: Sequence[int],
        limit: int,
        worker: int,
        *,
        gated: bool = False,
    ) -> list[Row]:
        records = await link.fetch(
            self.claim_tenants_sql,
            worker,
            limit,
            self._as_stored(FIRST),
            tenants,
            most,
            gated,
        )
        records.sort(key=lambda record: record["due_at"])
        return [self._row(record, worker) for record in records]

    async def claim_one_each(
        self, link: Link, stream: Stream, after: str, limit: int, worker: int
    ) -> tuple[list[Row], str | None]:
        first = self._as_stored(FIRST)
        records = await link.fetch(self.claim_one_each_sql, worker, limit, first, after, VISIT)
        last = records[0][self._keys + 1] if records else None
        records.sort(key=lambda record: record["due_at"])
        return [self._row(record, worker) for record in records], last

    def key(self, record: Any) -> Any:
        return record[0] if self._keys == 1 else tuple(record[: self._keys])

    def disown(self, worker: int, held: Collection[Row]) -> Statement:
        tokens = [row.token for row in held]
        return self._disown, [worker, tokens, *self._key_arrays(held)]

    def settle(
        self, worker: int, batch: Sequence[Settlement], *, wait: bool = False
    ) -> list[Statement]:
        transitions = [s.transition for s in batch]
        faults = [t.fault for t in transitions]
        params = [
            worker,
            [s.row.token for s in batch],
            [s.row.occurrence for s in batch],
            [t.verb for t in transitions],
            [t.next_at for t in transitions],
            [t.delay for t in transitions],
            [t.put_off for t in transitions],
            [s.row.attempt for s in batch],
            [t.refund for t in transitions],
            [s.run_ms for s in batch],
            [f and f.type for f in faults],
            [f and f.message for f in faults],
            [f and f.fingerprint for f in faults],
            [f and f.traceback for f in faults],
            [s.row.row_key for s in batch],
            *self._key_arrays([s.row for s in batch]),
        ]
        return [(self._settle_waiting if wait else self._settle, params)]

    def busy(self, record: Any) -> bool:
        return bool(record[self._keys])

    def confirm(self, worker: int, batch: Sequence[Settlement]) -> Statement:
        rows = [s.row for s in batch]
        tokens, row_keys = [row.token for row in rows], [row.row_key for row in rows]
        return self._confirm, [worker, tokens, row_keys, *self._key_arrays(rows)]

    def sweep(self, absent: Sequence[int], max_crashes: int) -> Statement:
        return self._sweep, [list(absent), max_crashes]

    def cut(self, absent: Sequence[int]) -> Statement:
        return self._cut, [list(absent)]

    def orphans(self) -> Statement:
        return self._orphans, []

    def abandon(self, worker: int) -> Statement:
        return self._abandon, [worker]

    def left(self, most: int) -> Statement:
        return self._left, [most, self._as_stored(FIRST)]

    def redrive(self, kind: str, after: float, times: int, limit: int) -> Statement:
        return self._redrive, [after, times, limit]

    def _row(self, record: Any, worker: int) -> Row:
        row_key, _, occurrence, due_at, token, attempt, crashes, tenant, claimed_at, *values = (
            record[self._keys :]
        )
        unreadable = values.pop()
        columns = dict(zip(self._reads, values, strict=True))
        for column in self._json:
            columns[column] = _parsed(columns[column])
        return Row(
            source=self.name,
            owner=worker,
            key=self.key(record),
            queue=self.name,
            kind=self.name,
            priority=0,
            due=seconds_of(_as_moment(due_at)),
            token=token,
            attempt=attempt,
            max_attempts=None,
            crashes=crashes,
            tenant=tenant,
            trace=None,
            args=_unreadable(self.name, unreadable) if unreadable else columns,
            created=seconds_of(_as_moment(occurrence)),
            claimed=seconds_of(claimed_at),
            occurrence=_as_moment(occurrence),
            key_text=row_key,
        )

    def _key_arrays(self, rows: Collection[Row]) -> list[list[Any]]:
        if self._keys == 1:
            return [[row.key for row in rows]]
        return [[row.key[i] for row in rows] for i in range(self._keys)]

    def _as_stored(self, moment: dt.datetime) -> dt.datetime:
        """A column without a time zone holds UTC."""
        return moment.replace(tzinfo=None) if self._naive else moment


# The first moment that a row can be due. What was due before, -infinity included, never runs: the
# driver cannot tell such a time from another.
FIRST = dt.datetime(1, 1, 2, tzinfo=dt.UTC)

# Types of a tenant's column within which a place can be picked at random.
_TENANT_KINDS: dict[str, Kind] = {
    "text": "text",
    "character varying": "text",
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "uuid": "uuid",
}

_JSON = frozenset(("json", "jsonb", "json[]", "jsonb[]"))

# A type whose name alone means a length of 1: a cast to an array of it would cut the keys.
_ARRAY_OF = {"character": "bpchar"}


def _as_moment(stored: dt.datetime) -> dt.datetime:
    return stored if stored.tzinfo is not None else stored.replace(tzinfo=dt.UTC)


def _parsed(value: Any) -> Any:
    """JSON as it comes from the driver: text, or a list of texts for an array of it."""
    if isinstance(value, list):
        return [_parsed(one) for one in value]
    return None if value is None else json.loads(value)


def _unreadable(source: str, columns: Sequence[str]) -> PayloadInvalid:
    return PayloadInvalid(
        f"a row of {source!r} holds what Python has no value for",
        why=f"{', '.join(columns)}: before the year 1, after 9999, or 24:00",
        hint="mend the value, or leave such rows out with where=...",
    )


def _claim(spec: TableSpec, layout: Layout) -> str:
    if spec.order is not None:
        return "claim_ordered"
    return "claim_partitioned" if layout.partitioned else "claim"


# Where the arrays of the key's columns begin among a statement's parameters.
_KEYS_FROM = {"settle": 16, "confirm": 4, "disown": 3}


def filled(name: str, spec: TableSpec, layout: Layout, **more: sql.Composable) -> str:
    """The text of sql/sources/<name>.sql for a table; more: names beyond those that all have."""
    return _filled(name, {**_names(spec, layout, ()), **more})


def _filled(name: str, names: dict[str, Any]) -> str:
    first = _KEYS_FROM.get(name, 1)
    arrays = [sql.SQL(f"${first + i}::{t}[]") for i, t in enumerate(names["key_types"])]
    template = sql.SQL(statement(f"sources/{name}"))
    return template.format(**names, key_arrays=_joined(arrays)).as_string(None)


def _names(spec: TableSpec, layout: Layout, reads: Sequence[str]) -> dict[str, Any]:
    """What stands for each name in the templates. Raw SQL comes from the catalog (types) or from
    the developer (the condition), never from data."""
    keys = [sql.Identifier(column) for column in spec.key]
    aliases = [sql.SQL(f"key_{i}") for i in range(len(keys))]
    types = [layout.types[column] for column in spec.key]
    tenant = sql.Identifier(spec.tenant) if spec.tenant else None
    naive = layout.types[spec.due].startswith("timestamp without")
    at_place: list[sql.Composable] = [sql.SQL("t.ctid = o.place")]
    if layout.partitioned:
        at_place += [sql.SQL("t.tableoid = o.part"), _matches("t", keys, aliases)]
    return {
        "table": sql.Identifier(layout.schema, layout.table),
        "name": sql.Literal(spec.name),
        "due": sql.Identifier(spec.due),
        "condition": sql.SQL(f"(\n{spec.where or 'true'}\n)"),  # it may end in a comment
        "key_types": [_ARRAY_OF.get(type_, type_) for type_ in types],
        "keys": _joined(sql.SQL("t.{}").format(key) for key in keys),
        "keys_of_w": _joined(
            sql.SQL("w.{} as {}").format(key, alias)
            for key, alias in zip(keys, aliases, strict=True)
        ),
        "key_aliases": _joined(aliases),
        "asked_keys": _joined(
            sql.SQL(f"(g.key ->> {i})::{_ARRAY_OF.get(type_, type_)} as key_{i}")
            for i, type_ in enumerate(types)
        ),
        "key_matches": _matches("w", keys, aliases),
        "key_matches_t": _matches("t", keys, aliases),
        "at_place": sql.SQL(" and ").join(at_place),
        "row_key_of_w": _as_text("w", keys, types),
        "row_key_of_t": _as_text("t", keys, types),
        "tenant_of_w": _tenant("w", tenant),
        "tenant_of_t": _tenant("t", tenant),
        "tenant": tenant or sql.SQL("null"),
        "ungoverned": _ungoverned(spec.name, tenant),
        "ungoverned_tenants": _ungoverned_tenants(spec.name),
        "ungoverned_source": sql.SQL("not {})").format(_gates_stand(spec.name)),
        "tenant_type": sql.SQL(_type_of(spec.tenant, layout)),
        "order": sql.Identifier(spec.order or spec.due),
        "columns": _columns(layout, reads),
        **_times(sql.Identifier(spec.due), naive=naive),
    }


def _times(due: sql.Identifier, *, naive: bool) -> dict[str, sql.Composable]:
    """The due expression and the moments that are written to the due column's type."""

    zone = sql.SQL(" at time zone 'UTC'" if naive else "")

    def at(moment: str) -> sql.Composable:
        return sql.SQL(stored(moment, naive))

    def expression(table: str) -> sql.Composable:
        of = sql.SQL(table)
        return sql.SQL(
            "(case when {of}duerow_held_for = {of}{due} "
            "then {of}duerow_retry_at else {of}{due} end)"
        ).format(of=of, due=due)

    return {
        "due_expression": expression("w."),
        "turn_expression": turn_expression(expression("w.")),
        "due_expression_of_t": expression("t."),
        "now": at("now()"),
        "occurrence": at("o.occurrence"),
        "next": at("coalesce(o.next_at, statement_timestamp() + make_interval(secs => o.delay))"),
        "occurrence_of_w": sql.SQL("case when isfinite(w.{due}) then w.{due}{zone} end").format(
            due=due, zone=zone
        ),
        "crash_retry": at("now() + make_interval(secs => power(4, t.duerow_crashes) - 1)"),
        "then_due": sql.SQL("nullif({}, 'infinity'){}").format(expression("t."), zone),
    }


def stored(moment: str, naive: bool) -> str:
    """SQL for a moment as the due column stores it: without a time zone, if `naive`, in UTC."""
    return f"(({moment}) at time zone 'UTC')" if naive else f"({moment})"


# What Python's types of time do not reach, by the SQL type: the driver fails on the whole answer.
_READABLE = {
    "date": "{0} between '0001-01-01' and '9999-12-31' or not isfinite({0})",
    "timestamp without time zone": "{0} between '0001-01-02' and '9999-12-31' or not isfinite({0})",
    "timestamp with time zone": "{0} between '0001-01-02' and '9999-12-31' or not isfinite({0})",
    "time without time zone": "{0} < '24:00'",
    "time with time zone": "{0}::time < '24:00'",
    "interval": "extract(epoch from {0}) between -8e13 and 8e13",
}


def _columns(layout: Layout, reads: Sequence[str]) -> sql.Composed:
    """The columns to read, and the names of those whose value cannot be, or null."""
    listed: list[sql.Composable] = []
    checks: list[sql.Composable] = []
    for name in reads:
        column = sql.SQL("t.{}").format(sql.Identifier(name))
        if check := _READABLE.get(layout.types[name]):
            readable = sql.SQL(check).format(column)
            checks.append(
                sql.SQL("case when not ({}) then {} end").format(readable, sql.Literal(name))
            )
            column = sql.SQL("case when {} then {} end").format(readable, column)
        listed.append(sql.SQL(", {}").format(column))
    names = sql.SQL(", nullif(array_remove(array[{}]::text[], null), '{{}}')")
    return sql.Composed([*listed, names.format(_joined(checks))])


def _joined(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _matches(
    table: str, keys: Sequence[sql.Identifier], aliases: Sequence[sql.SQL]
) -> sql.Composed:
    of = sql.SQL(table)
    return sql.SQL(" and ").join(
        sql.SQL("{}.{} = o.{}").format(of, key, alias)
        for key, alias in zip(keys, aliases, strict=True)
    )


def _as_text(table: str, columns: Sequence[sql.Identifier], types: Sequence[str]) -> sql.Composable:
    """The key as one text, which worker.attempts knows the row by. The same in every session: a
    time is told in UTC. Columns are joined by commas; one inside a column gets a backslash, or two
    rows would share a text, and with it an idempotency key."""
    texts = [
        sql.SQL(
            "({}.{} at time zone 'UTC')::text || '+00'"
            if type_ == "timestamp with time zone"
            else "{}.{}::text"
        ).format(sql.SQL(table), column)
        for column, type_ in zip(columns, types, strict=True)
    ]
    if len(texts) == 1:
        return texts[0]
    escaped = [
        sql.SQL("replace(replace({}, '\\', '\\\\'), ',', '\\,')").format(text) for text in texts
    ]
    return sql.SQL("concat_ws(',', {})").format(_joined(escaped))


def key_text(table: str, columns: Sequence[str], layout: Layout) -> sql.Composable:
    """The same of these columns of the key."""
    types = [layout.types[column] for column in columns]
    return _as_text(table, [sql.Identifier(column) for column in columns], types)


def _ungoverned(name: str, tenant: sql.Identifier | None) -> sql.Composable:
    """No gate stands before the source ($4: but for those that the caller holds), nor one that
    goes by tenants before the row's."""
    stand = _gates_stand(name)
    whole = sql.SQL("($4 or not {} and g.tenant is null))").format(stand)
    if tenant is None:
        return whole
    some = sql.SQL("(w.{} is null or not {} and g.tenant is not null))").format(tenant, stand)
    return sql.SQL("{} and {}").format(whole, some)


def _ungoverned_tenants(name: str) -> sql.Composable:
    return sql.SQL("($6 or not {}))").format(_gates_stand(name))


def _gates_stand(name: str) -> sql.Composable:
    """Whether gates stand before a source; a subquery that is left open for another condition."""
    return sql.SQL(
        "exists (select from worker.gates g where g.governs"
        " and (g.queue is null or g.queue = {name}) and (g.kind is null or g.kind = {name})"
    ).format(name=sql.Literal(name))


def _type_of(column: str | None, layout: Layout) -> str:
    type_ = "text" if column is None else layout.types[column]
    return _ARRAY_OF.get(type_, type_)


def _tenant(table: str, tenant: sql.Identifier | None) -> sql.Composable:
    if tenant is None:
        return sql.SQL("null::text")
    return sql.SQL("{}.{}::text").format(sql.SQL(table), tenant)
